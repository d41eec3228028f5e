from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from episodes import InputError
from metagvae.cli import main
from metagvae.compute import device as module
from metagvae.compute.device import Device, channels_last
from metagvae.encoders.backbones import Conv4


@pytest.fixture(autouse=True)
def _measured_anew():
    module._bfloat16_pays.cache_clear()
    yield
    module._bfloat16_pays.cache_clear()


def test_bfloat16_is_left_where_the_processor_has_no_instructions_for_it(monkeypatch) -> None:
    monkeypatch.setattr(module, "_cpu_computes_bfloat16", lambda: False)
    assert not Device.choose("cpu").autocast
    assert Device.choose("cpu", "bfloat16").autocast


@pytest.mark.parametrize(("slow", "taken"), [(torch.bfloat16, False), (torch.float32, True)])
def test_bfloat16_is_left_where_it_measures_slower(monkeypatch, slow: torch.dtype, taken: bool) -> None:
    """On a clock that only convolutions move: a busy machine measures the same."""
    clock = 0.0

    def conv2d(images: Tensor, *_: object, **__: object) -> Tensor:
        nonlocal clock
        clock += 2.0 if images.dtype == slow else 1.0
        return images

    monkeypatch.setattr(module, "_cpu_computes_bfloat16", lambda: True)
    monkeypatch.setattr(module, "F", SimpleNamespace(conv2d=conv2d))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock))
    assert Device.choose("cpu").autocast is taken
    assert clock > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_layout_is_channels_last_for_one_channel_too(channels: int) -> None:
    """With one channel both layouts fit, and torch would carry the other one through the first block."""
    images = torch.rand(4, channels, 28, 28)
    laid = channels_last(images)
    assert torch.equal(laid, images)
    assert laid.stride() == (28 * 28 * channels, 1, 28 * channels, channels)
    net = Conv4(channels, 8)
    Device.choose("cpu", "float32").place(net)
    for given in (images, laid):
        assert net.blocks[0][0](given).stride()[1] == 1


def test_a_precision_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="one of auto, float32, tf32, bfloat16; received 'foo'"):
        Device.choose("cpu", "foo")
    assert main(["benchmark", "--rows", "ceilings", "--device", "cpu", "--precision", "foo"]) == 2
    error = capsys.readouterr().err
    assert "received 'foo'" in error
    assert "measuring" not in error
