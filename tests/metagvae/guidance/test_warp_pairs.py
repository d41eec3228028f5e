from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import EpisodeBatch, InputError
from metagvae.encoders.encoder import Posterior
from metagvae.guidance import GuidanceContext, GuidanceInputs, Views, assign_units, make_guidances
from metagvae.guidance.warp_pairs import WarpPairs
from metagvae.learners import make_learner


def guidance(latent: int = 10, **options: object) -> WarpPairs:
    spec = {"name": "warp_pairs", "geometry": 3, **options}
    torch.manual_seed(0)
    return WarpPairs(GuidanceContext(1, 28, assign_units([spec], latent)), **{"geometry": 3, **options})  # type: ignore[arg-type]


def inputs(mean: Tensor, parameters: Tensor, count: int) -> GuidanceInputs:
    images = torch.zeros(len(mean), 1, 28, 28)
    posterior = Posterior(mean, torch.zeros_like(mean))
    return GuidanceInputs(images, posterior, mean, torch.nn.Identity(), {}, Views(count, parameters))


def test_recognition_is_the_mean_of_one_shot_episodes_in_every_role() -> None:
    """Against the prototypical network itself, given each warp as the support in turn."""
    pictures, count = 6, 4
    means = torch.randn(pictures, count, 7)
    learner = make_learner("prototypes", torch.nn.Identity(), pictures)
    losses = []
    for support in range(count):
        order = [support, *(i for i in range(count) if i != support)]
        ids = torch.arange(pictures)[None]
        batch = EpisodeBatch(means[:, order][None], 1, ids, ids.unsqueeze(-1).expand(1, -1, count))
        losses.append(learner(batch)[0])
    found = guidance().recognition(means.flatten(0, 1), count)
    assert torch.allclose(found, torch.stack(losses).mean(), rtol=1e-5)


def test_cosine_does_not_see_lengths() -> None:
    means = torch.randn(12, 7)
    cosine = guidance(distance="cosine", scale=5.0)
    assert torch.allclose(cosine.recognition(means, 3), cosine.recognition(means * torch.rand(12, 1), 3), atol=1e-5)
    assert float(cosine.similarity(means).max()) == pytest.approx(5.0, abs=1e-4)


def test_geometry_term_is_the_error_over_all_pairs() -> None:
    pairs = guidance(prediction=3.0)
    mean, parameters, count = torch.randn(8, 10), torch.rand(8, 7), 4
    total, number = 0.0, 0
    for picture in range(2):
        rows = range(4 * picture, 4 * picture + 4)
        for a in rows:
            for b in rows:
                gap = pairs.reader(mean[a, pairs.geometry] - mean[b, pairs.geometry]) - (parameters[a] - parameters[b])
                total, number = total + float(gap.square().mean().detach()), number + 1
    found = pairs(inputs(mean, parameters, count))["geometry"]
    # the mean over all pairs, a row with itself among them, is twice the mean square about the mean
    assert float(found.detach()) == pytest.approx(3.0 * total / number / 2, rel=1e-4)


def test_each_term_moves_its_own_units_only() -> None:
    pairs = guidance(inhibition=1.0)
    for name, units in (("content", pairs.content), ("geometry", pairs.geometry), ("hidden", pairs.content)):
        mean = torch.randn(8, 10, requires_grad=True)
        pairs.zero_grad()
        pairs(inputs(mean, torch.rand(8, 7), 4))[name].backward()
        assert mean.grad is not None
        touched = mean.grad.abs().sum(0).nonzero().flatten().tolist()
        assert touched == units
        if name == "hidden":  # the adversary is not taught to fail
            assert all(p.grad is None for p in pairs.adversary.parameters())
    mean = torch.randn(8, 10, requires_grad=True)
    pairs(inputs(mean, torch.rand(8, 7), 4))["adversary"].backward()
    assert mean.grad is None


def test_a_code_that_splits_content_from_warp_costs_nothing() -> None:
    """Far-apart contents unmoved by the warps, geometry linear in them: no error is left but what the reader lacks."""
    pairs = guidance(latent=14)
    parameters = torch.rand(20, 7)
    parameters[:, 3:] = 0
    content = 30 * F.one_hot(torch.arange(5), 11).float().repeat_interleave(4, 0)
    mean = torch.cat((parameters[:, :3] + torch.randn(5, 3).repeat_interleave(4, 0), content), 1)
    with torch.no_grad():
        pairs.reader.weight.copy_(torch.eye(7, 3))
    terms = pairs(inputs(mean, parameters, 4))
    assert float(terms["content"].detach()) == pytest.approx(0, abs=1e-4)
    assert float(terms["geometry"].detach()) == pytest.approx(0, abs=1e-4)


def test_inhibition_takes_the_warp_out_of_the_content() -> None:
    """Content that plainly holds the warp; pushed by the hidden term, with the adversary learning beside it."""
    pairs = guidance(inhibition=20.0, contrast=0.0)
    parameters = torch.rand(256, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    start = torch.randn(256, 10)
    start[:, 3:] = 0.3 * start[:, 3:] + parameters
    mapping = torch.nn.Linear(10, 10)
    torch.nn.init.eye_(mapping.weight)
    optimizer = torch.optim.Adam([*mapping.parameters(), *pairs.parameters()], 1e-2)

    def differences(values: Tensor) -> Tensor:
        grouped = values.view(64, 4, -1)
        return (grouped - grouped.mean(1, keepdim=True)).flatten(0, 1)

    def explained() -> float:
        """Share of the warps' variance that a linear reader fitted afresh gets out of noisy content."""
        mean = mapping(start).detach()
        x = differences((mean + 0.3 * torch.randn_like(mean))[:, pairs.content])
        y = differences(parameters)
        return 1 - float((y - x @ torch.linalg.lstsq(x, y).solution).square().sum() / y.square().sum())

    before = explained()
    for _ in range(300):
        mean = mapping(start)
        terms = pairs(inputs(mean + 0.3 * torch.randn_like(mean), parameters, 4))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before > 0.6
    assert explained() < 0.5 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"distance": "manhattan"}, "euclidean"), ({"scale": 0.0}, "scale > 0"), ({"contrast": -1.0}, "weights >= 0")],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        guidance(**options)


def test_pictures_without_warps_are_refused() -> None:
    pairs = guidance()
    alone = inputs(torch.randn(4, 10), torch.zeros(4, 7), 1)
    with pytest.raises(InputError, match="set views"):
        pairs(alone)
    with pytest.raises(InputError, match="whole number of 0 or more"):
        WarpPairs.owned_units(geometry=-1)


def test_geometry_may_be_left_to_another_guidance() -> None:
    specs = [{"name": "auxiliary_contrast"}, {"name": "warp_pairs", "geometry": 0}]
    units = assign_units(specs, 10)
    assert units == {"geometry": [0, 1, 2, 3, 4, 5, 6], "content": [7, 8, 9]}
    pairs = make_guidances(specs, GuidanceContext(1, 28, units))[1]
    assert list(pairs(inputs(torch.randn(4, 10), torch.rand(4, 7), 2))) == ["content"]
    assert not list(pairs.parameters())
