"""Samples against real images: which run is compared with which, and a generator that must be caught."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from episodes import ImageBank, InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.studies.sampling import (
    Samples,
    discriminator_accuracy,
    measure_samples,
    rebuilding_error,
    reference_of,
)
from metagvae.vae.decoders import Decoder
from metagvae.vae.guided_vae import GuidedVAE


@pytest.mark.parametrize(
    ("name", "expected"),
    [("b", "a-seed0"), ("b-seed0", "a-seed0"), ("b-seed1", "a-seed1"), ("b-seed2", "a-seed0"), ("a-seed1", "a-seed1")],
)
def test_runs_are_compared_with_the_first_of_their_seed(name: str, expected: str) -> None:
    assert reference_of(name, ["a-seed0", "a-seed1", "b-seed0", "b-seed1", "b"]) == expected


def test_a_run_is_never_compared_with_a_third_of_its_seed() -> None:
    """The column is called by the first run's name."""
    assert [reference_of(name, ["a-seed0", "b-seed1", "c-seed1"]) for name in ("b-seed1", "c-seed1")] == ["a-seed0"] * 2


def test_a_discriminator_cannot_tell_images_of_one_kind_and_tells_those_of_another() -> None:
    generator = torch.Generator().manual_seed(0)
    real, same, blurred = (torch.rand(300, 1, 28, 28, generator=generator) for _ in range(3))
    assert abs(discriminator_accuracy(real, same) - 0.5) < 0.1
    assert discriminator_accuracy(real, 0.5 * blurred) > 0.95


def test_the_rebuilding_error_is_a_sum_over_pixels_and_a_mean_over_images() -> None:
    vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6)), Decoder(6, 1, 28, 8)).eval()
    images = torch.rand(7, 1, 28, 28)
    with torch.no_grad():
        expected = torch.stack([(vae.reconstruct(image[None]) - image).square().sum() for image in images]).mean()
    assert rebuilding_error(vae, images) == pytest.approx(float(expected), rel=1e-5)


class _Bars:
    """A data set of bars, and a trained thing whose samples are images that it is given."""

    def __init__(self, name: str, drawn: torch.Tensor) -> None:
        self.name, self.drawn = name, drawn

    def dataset(self, root: str | None = None) -> _Bars:
        return self

    def load(self, split: str) -> ImageBank:
        generator = torch.Generator().manual_seed(len(split))
        images = (255 * bars(240, generator)).byte()
        parts = [(str(number), images[120 * number : 120 * number + 120]) for number in range(2)]
        return ImageBank.from_classes(parts, dataset="bars", split=split, polarity="ink")

    def vae(self) -> torch.Tensor:
        return self.drawn


def bars(count: int, generator: torch.Generator, width: float = 3) -> torch.Tensor:
    place = 6 + 16 * torch.rand(count, 1, 1, 1, generator=generator)
    ink = ((torch.arange(28.0) - place).abs() < width).float().expand(count, 1, 28, 28)
    return (0.9 * ink + 0.1 * torch.rand(count, 1, 28, 28, generator=generator)).clamp(0, 1)


def test_the_worse_generator_is_told_with_an_interval_clear_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawn:
        def __init__(self, drawn: torch.Tensor, temperature: float, seed: int) -> None:
            self.drawn = drawn

        def samples(self, count: int) -> object:
            return type("Row", (), {"images": self.drawn[None, :count]})

    monkeypatch.setattr("metagvae.studies.sampling.Synthesis", Drawn)
    monkeypatch.setattr("metagvae.studies.sampling._vae", lambda run, bank: run.vae())
    monkeypatch.setattr("metagvae.studies.sampling.discriminator_accuracy", lambda *_: 0.5)
    monkeypatch.setattr("metagvae.studies.sampling.rebuilding_error", lambda *_: 0.0)
    generator = torch.Generator().manual_seed(7)
    good, bad = bars(200, generator), bars(200, generator, width=5)
    runs = [_Bars("bad-seed0", bad), _Bars("good-seed0", good)]
    found = measure_samples(runs, Samples("lenet", count=200), None)  # type: ignore[arg-type]
    one = found.scores["good-seed0"]
    assert found.scores["bad-seed0"].other is None
    assert one.other == "bad-seed0"
    assert one.against is not None
    assert one.kernel_against is not None
    assert one.against.high < 0
    assert one.kernel_against.high < 0
    assert one.frechet.value - found.scores["bad-seed0"].frechet.value == pytest.approx(one.against.value, rel=1e-6)
    assert one.recall > found.scores["bad-seed0"].recall
    assert "less bad's" in found.text()
    # in any order: the like of the second comes after it
    runs = [_Bars("bad-seed0", bad), _Bars("good-seed1", good), _Bars("bad-seed1", bad)]
    again = measure_samples(runs, Samples("lenet", count=200), None).scores  # type: ignore[arg-type]
    assert again["good-seed1"].other == "bad-seed1"
    assert again["good-seed1"].against == one.against


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "train"}, "--split must be"), ({"count": 99}, "--count must be between 100 and the 240 test images")],
)
def test_what_cannot_be_measured_is_one_sentence(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        measure_samples([_Bars("a", torch.rand(9, 1, 28, 28))], Samples("lenet", **options), None)  # type: ignore[list-item]
