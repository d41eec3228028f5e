"""The contrast against closed forms, and units that answer to one warp parameter each."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from episodes import AugmentConfig, InputError, warp
from episodes.augment import PARAMETERS
from metagvae.config.sections import VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.evaluation.identifiability import mcc
from metagvae.guidance import (
    AuxiliaryContrast,
    GuidanceContext,
    GuidanceInputs,
    Views,
    assign_units,
    make_guidances,
)
from metagvae.guidance.contrast import PairedContrast, SegmentContrast
from metagvae.runs.signals import Interrupted
from metagvae.studies.mixtures import Mixture
from metagvae.training.pretraining import pretrain
from metagvae.vae.decoders import Decoder
from metagvae.vae.guided_vae import GuidedVAE
from tests.support.trainings import assert_same_run, bank, pretrain_config


def build(**options: object) -> GuidedVAE:
    """A small VAE with this guidance, on images of 4 classes and 2 scripts."""
    spec = {"name": "auxiliary_contrast", **options}
    units = assign_units([spec], 16)
    guidances = make_guidances([spec], GuidanceContext(1, 28, units, {"class": 4, "script": 2}))
    return GuidedVAE(Encoder(EncoderConfig(width=8, latent=16, units=units)), Decoder(16, 1, 28, 8), guidances)


def true_contrast(mixture: Mixture) -> SegmentContrast:
    """The contrast whose logits are the sources' own log-densities, but for what the segments share."""
    contrast = SegmentContrast(mixture.segments, mixture.sources).double()
    precision = mixture.scale**-2
    with torch.no_grad():
        contrast.weights.weight.copy_(torch.stack((mixture.location * precision, -precision / 2), -1).flatten(1))
        contrast.weights.bias.copy_(-(mixture.location**2 * precision / 2 + mixture.scale.log()).sum(1))
    return contrast


def test_the_loss_at_the_true_sources_is_the_closed_form_and_no_other_code_has_less() -> None:
    mixture = Mixture(layers=3, segments=12, seed=3)
    rows = mixture.draw(6000, seed=0)
    contrast = true_contrast(mixture)
    normal = torch.distributions.Normal(mixture.location, mixture.scale)
    posterior = normal.log_prob(rows.sources[:, None]).sum(-1).log_softmax(1)
    closed = -posterior.gather(1, rows.segments[:, None]).mean()
    at_truth = contrast.loss(mixture.unmix(rows.x), rows.segments)
    assert float((at_truth - closed).detach().abs()) < 1e-6
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    for other in (rows.x, rows.sources @ turn, rows.sources.tanh()):
        assert float(contrast.loss(other, rows.segments).detach()) > float(closed) + 0.1


def test_the_mixing_is_undone_exactly() -> None:
    mixture = Mixture(layers=4, seed=1)
    rows = mixture.draw(500, seed=2)
    assert torch.allclose(mixture.unmix(rows.x), rows.sources, atol=1e-10)
    again = Mixture(layers=4, seed=1).draw(500, seed=2)
    assert torch.equal(again.x, rows.x)
    assert not torch.equal(mixture.draw(500, seed=3).x, rows.x)


def test_log_odds_of_known_densities_are_reached_by_the_pairs_form() -> None:
    """One unit h = u + noise: log p(h|u) - log p(h) is quadratic in h with u's own coefficients."""
    torch.manual_seed(0)
    contrast = PairedContrast(units=1, free=1)
    optimiser = torch.optim.Adam(contrast.parameters(), 1e-2)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        u = torch.rand(count, 1) * 2 - 1
        return u + 0.3 * torch.randn(count, 1), u

    for _ in range(400):
        h, u = draw(512)
        loss = contrast.loss(h, h, u, u.roll(1, 0)[None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    h, u = draw(20_000)
    normal = torch.distributions.Normal(0.0, 0.3)
    grid = torch.linspace(-1, 1, 201)
    marginal = normal.log_prob(h - grid).logsumexp(1) - math.log(201)
    truth = normal.log_prob(h - u).squeeze(1) - marginal
    with torch.no_grad():
        reached = contrast.loss(h, h, u, u.roll(1, 0)[None])
    best = torch.nn.functional.softplus(-truth).mean()
    other = normal.log_prob(h - u.roll(1, 0)).squeeze(1) - marginal
    best = best + torch.nn.functional.softplus(other).mean()
    assert 0 <= float(reached - best) + 0.01 < 0.05
    assert float(best) < 2 * math.log(2) - 0.2


def test_each_unit_comes_to_answer_to_its_own_parameter() -> None:
    """Rotated codes of the parameters, a linear map before the guidance: it must turn them back."""
    torch.manual_seed(0)
    spec = {"name": "auxiliary_contrast"}
    units = assign_units([spec], 9)
    guidance = AuxiliaryContrast(GuidanceContext(1, 28, units), weight=1.0)
    turn = torch.linalg.qr(torch.randn(7, 7))[0]
    undo = torch.nn.Linear(7, 9)
    optimiser = torch.optim.Adam([*guidance.parameters(), *undo.parameters()], 1e-2)

    def codes(count: int) -> tuple[Tensor, Tensor]:
        parameters = torch.rand(count, 7) * 2 - 1
        return parameters @ turn + 0.05 * torch.randn(count, 7), parameters

    for _ in range(300):
        seen, parameters = codes(128)
        mean = undo(seen)
        inputs = GuidanceInputs(
            torch.zeros(128, 1, 28, 28), Posterior(mean, mean), mean, torch.nn.Identity(), {}, Views(4, parameters)
        )
        loss = guidance(inputs)["contrast"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    seen, parameters = codes(2000)
    with torch.no_grad():
        mean = undo(seen)[:, :7].numpy()
    match = mcc(mean[:1000], parameters[:1000].numpy(), mean[1000:], parameters[1000:].numpy())
    assert match.units == list(range(7))
    assert match.score > 0.97
    mixed = mcc(*(rows.numpy() for rows in (seen[:1000], parameters[:1000], seen[1000:], parameters[1000:])))
    assert mixed.score < 0.85


def test_units_are_named_and_a_value_is_told_by_its_own_units() -> None:
    vae: GuidedVAE = build()
    assert [vae.guidances[0].unit_names()[unit] for unit in range(7)] == list(PARAMETERS)
    warped = warp(torch.rand(8, 1, 28, 28), AugmentConfig(rotation=20))
    assert vae.guidances[0].needs_views
    with pytest.raises(InputError, match="set views to 2 or more"):
        vae.check_views(1)
    with pytest.raises(InputError, match="compares warps of one image"):
        vae.losses(warped.images)
    told: GuidedVAE = build(auxiliary="script", units=3)
    assert told.encoder.units["components"] == [0, 1, 2]
    assert not told.guidances[0].needs_views
    labels = {"script": torch.tensor([0, 1, -1, 0])}
    loss = told.losses(torch.rand(4, 1, 28, 28), labels)["auxiliary_contrast/contrast"]
    assert torch.isfinite(loss)
    nothing = {"script": torch.full((4,), -1)}
    assert not told.losses(torch.rand(4, 1, 28, 28), nothing)["auxiliary_contrast/contrast"].detach()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 3}, "leave out units, or give 7"),
        ({"auxiliary": "colour", "units": 3}, "no variable 'colour' here; known: warp, class, script"),
        ({"auxiliary": "script", "units": 0}, "at least one unit"),
        ({"statistics": 4}, "1 to 3 statistics"),
        ({"negatives": 0}, "negatives >= 1"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)


@pytest.mark.parametrize(("auxiliary", "views"), [("warp", 2), ("third", 1)])
def test_a_stopped_run_ends_bit_identical(tmp_path: Path, auxiliary: str, views: int) -> None:
    def run(folder: str, **section: Any) -> None:
        config = pretrain_config(tmp_path / folder, steps=4, **section)
        spec = {"name": "auxiliary_contrast", "auxiliary": auxiliary}
        config.encoder.latent, config.vae = 10, VAESection(guidance=[spec], decoder_width=4)
        pretrain(replace(config, views=views), bank())

    run("whole")
    with pytest.raises(Interrupted):
        run("halves", stop_after=2)
    run("halves", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves", "vae.safetensors")


@pytest.mark.parametrize("pictures", [2, 3, 5])
def test_an_image_is_told_from_others_alone_however_few_they_are(
    pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    vae = build(negatives=4)
    contrast = vae.guidances[0].contrast
    told = type(contrast).loss

    def listening(self: PairedContrast, code: Tensor, x: Tensor, own: Tensor, others: Tensor) -> Tensor:
        seen.extend((own, others))
        return told(self, code, x, own, others)

    monkeypatch.setattr(PairedContrast, "loss", listening)
    images = torch.rand(pictures, 1, 28, 28).repeat_interleave(2, 0)
    warped = warp(images, AugmentConfig(rotation=20, scale=0.2, shear=0.1, translation=0.1))
    vae.losses(warped.images, views=Views(2, warped.parameters))
    own, others = seen
    assert len(others) == min(4, pictures - 1)
    assert not any(torch.equal(row, own[place]) for each in others for place, row in enumerate(each))
    alone = slice(0, 2)
    with pytest.raises(InputError, match="2 images a step or more"):
        vae.losses(warped.images[alone], views=Views(2, warped.parameters[alone]))
