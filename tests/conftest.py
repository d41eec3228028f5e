"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# the tests' tensors are small: a second thread costs more than it brings, here and in the commands they start
os.environ.setdefault("OMP_NUM_THREADS", "1")

# whatever PYTHONDONTWRITEBYTECODE says: each process that a test starts would compile the packages anew
sys.dont_write_bytecode = False

import pytest
import torch

from episodes import ImageBank
from tests.support.banks import stripes

torch.set_num_threads(1)
# autograd counts devices at a process's first backward pass and starts a thread for each, after which a process cannot
# fork; torch's fake tensors count as a device, so a pass comes before any test can make one
torch.zeros(1, requires_grad=True).sum().backward()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in the background deaf to it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    """Decoded banks go to a folder of this session's own, which the processes of one session share."""
    before = os.environ.get("METAGVAE_CACHE")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["METAGVAE_CACHE"] = str(folder / "cache")
    yield
    if before is None:
        del os.environ["METAGVAE_CACHE"]
    else:
        os.environ["METAGVAE_CACHE"] = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it skip without it."""
    given = os.environ.get("METAGVAE_DATA")
    if not given:
        pytest.skip("METAGVAE_DATA is not set; it names the folder that holds omniglot/ and miniimagenet/")
    return Path(given)


@pytest.fixture
def bank() -> ImageBank:
    return stripes()
