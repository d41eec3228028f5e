"""The kernel that draws and gathers on a GPU, in Triton's interpreter and compiled for a GPU that is not here."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from episodes import EpisodeBatch, EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, ImageBank
from episodes import loader as loader_module
from episodes.batch import gather_batch
from episodes.loader import _kernel
from episodes.samplers.by_attribute import WithinSampler
from episodes.samplers.pictures import ViewSampler, picture_classes

REPOSITORY = Path(__file__).parents[2]


def bank(size: int = 6) -> ImageBank:
    images = torch.randint(256, (40, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageBank(images, torch.arange(9) * 5, tuple("abcdefgh"))


def test_batches_are_torchs() -> None:
    """Draws, quarter turns and pictures; words of 1, 4 and 8 bytes; ragged classes; seeds and numbers of 64 bits."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "tests.support.triton_batches"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 14


@pytest.mark.parametrize(("side", "word", "way", "size"), [(0, "*i64", 5, 16), (28, "*u8", 5, 16), (0, "*u8", 60, 6)])
def test_it_compiles_for_a_gpu(side: int, word: str, way: int, size: int) -> None:
    """Down to an H100's machine code, and keeps everything in registers."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from episodes import _triton

    lanes = triton.next_power_of_2(size)
    constants = {
        "WAY": way,
        "SIZE": size,
        "WORDS": 784 if word == "*u8" else 98,
        "SIDE": side,
        "WAYS": triton.next_power_of_2(way),
        "LANES": lanes,
        "CHUNK": max(32, _triton.TILE // lanes),
    }
    signature = {"images": word, "batch": word, "eligible": "i32"}
    signature |= dict.fromkeys(("spans", "key", "numbers", "classes", "indices"), "*i64")
    signature |= dict.fromkeys(constants, "constexpr")
    order = {name: signature[name] for name in _triton._batch.arg_names}
    source = ASTSource(_triton._batch, signature=order, constexprs=constants)
    try:
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 2})
    except (RuntimeError, FileNotFoundError) as error:
        pytest.skip(f"this Triton has no assembler for a GPU: {error}")
    assert len(compiled.asm["cubin"]) > 1000
    assert "st.local" not in compiled.asm["ptx"]


def test_what_it_is_for() -> None:
    pytest.importorskip("triton")
    from episodes import _triton

    plain = bank()
    assert _triton.fits(plain, EpisodeSampler(plain, Episodes(EpisodeShape(3, 1, 2))))
    assert _triton.fits(plain, EpisodeSampler(plain, Episodes(EpisodeShape(3, 1, 2), rotations=True)))
    wide = ImageBank(plain.images[..., :4], plain.offsets, plain.class_names)
    assert not _triton.fits(wide, EpisodeSampler(wide, Episodes(EpisodeShape(3, 1, 2))))  # not in one piece
    tall = ImageBank(plain.images[..., :4].contiguous(), plain.offsets, plain.class_names)
    assert _triton.fits(tall, EpisodeSampler(tall, Episodes(EpisodeShape(3, 1, 2))))
    assert not _triton.fits(tall, EpisodeSampler(tall, Episodes(EpisodeShape(3, 1, 2), rotations=True)))  # not square
    pictures = picture_classes(plain)
    assert not _triton.fits(pictures, ViewSampler(pictures, Episodes(EpisodeShape(3, 1, 2))))
    assert issubclass(WithinSampler, EpisodeSampler)  # a subclass draws otherwise, so the kernel leaves it alone


def test_a_processor_and_who_asks_for_torch_get_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = bank()
    assert _kernel(plain, EpisodeSampler(plain, Episodes(EpisodeShape(3, 1, 2)))) is None
    elsewhere = _Elsewhere(plain)
    monkeypatch.setenv("METAGVAE_COMPILED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _kernel(elsewhere, EpisodeSampler(plain, Episodes(EpisodeShape(3, 1, 2)))) is None  # type: ignore[arg-type]


class _Elsewhere:
    """A bank that says it lies on a GPU, and whose memory is no GPU's."""

    def __init__(self, plain: ImageBank) -> None:
        self.images, self.image_shape, self.device = plain.images, plain.image_shape, torch.device("cuda", 0)


def test_where_the_kernel_cannot_be_made_torch_draws_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("METAGVAE_COMPILED", "1")
    plain = bank()
    with pytest.warns(UserWarning, match="torch draws the episodes"):
        assert _kernel(_Elsewhere(plain), EpisodeSampler(plain, Episodes(EpisodeShape(3, 1, 2)))) is None  # type: ignore[arg-type]


def test_the_loader_gives_the_kernel_each_steps_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = bank()
    sampler = EpisodeSampler(plain, Episodes(EpisodeShape(3, 1, 2)))
    asked = []

    def kernel(bank: ImageBank, sampler: EpisodeSampler, numbers: torch.Tensor) -> EpisodeBatch:
        asked.append(len(numbers))
        return gather_batch(bank, sampler.draw(numbers))

    monkeypatch.setattr(loader_module, "_kernel", lambda *_: kernel)
    monkeypatch.setattr(loader_module, "MADE", 2 * 4 * 9 * 36 + 1)  # of two steps
    monkeypatch.setitem(loader_module.BLOCK, "cpu", 7 * 4 * 9)  # the numbers of six
    loader, torchs = EpisodeLoader(plain, sampler, 4), EpisodeLoader(plain, sampler, 4, threads=1)
    with torchs:
        for step in (0, 1, 5, 1, 7, 2**20):
            ours, theirs = loader[step], torchs[step]
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.classes, theirs.classes)
            assert torch.equal(ours.indices, theirs.indices)
    assert asked == [8] * 5  # steps 0 and 1 at once, then each other block


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_loader_takes_it_and_the_batches_are_torchs() -> None:
    here = bank(28).to("cuda")
    for turns in (False, True):
        loader = EpisodeLoader(here, EpisodeSampler(here, Episodes(EpisodeShape(5, 1, 4), rotations=turns)), 64)
        assert loader._kernel is not None
        plain = EpisodeLoader(bank(28), EpisodeSampler(bank(28), Episodes(EpisodeShape(5, 1, 4), rotations=turns)), 64)
        for step in (0, 3, 1000):
            ours, theirs = loader[step], plain[step]
            assert torch.equal(ours.images.cpu(), theirs.images)
            assert torch.equal(ours.classes.cpu(), theirs.classes)
            assert torch.equal(ours.indices.cpu(), theirs.indices)
