"""Dependence without an adversary: against its definition, where it is zero, and what it drives out."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from metagvae.encoders.encoder import Posterior
from metagvae.guidance import ExcitationInhibition, GuidanceContext, GuidanceInputs, assign_units
from metagvae.guidance.dependence import dependence, unbiased_hsic


def by_definition(k: torch.Tensor, l: torch.Tensor) -> float:  # noqa: E741
    """E k l' + E k E l - 2 E k l over all tuples of different rows (Song et al., JMLR 2012, equation 2)."""
    rows = range(len(k))
    pairs = [float(k[i, j] * l[i, j]) for i, j in permutations(rows, 2)]
    fours = [float(k[i, j] * l[q, r]) for i, j, q, r in permutations(rows, 4)]
    threes = [float(k[i, j] * l[i, q]) for i, j, q in permutations(rows, 3)]
    return sum(pairs) / len(pairs) + sum(fours) / len(fours) - 2 * sum(threes) / len(threes)


def test_the_estimate_is_the_mean_over_all_tuples_of_known_rows() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    k, l = (torch.exp(-torch.cdist(v, v).square()) for v in (x, y))  # noqa: E741
    every = torch.ones(7, dtype=torch.bool)
    assert float(unbiased_hsic(k, l, every)) == pytest.approx(by_definition(k, l), abs=1e-12)
    known = torch.tensor([True, False, True, True, True, False, True])
    inside = by_definition(k[known][:, known], l[known][:, known])
    assert float(unbiased_hsic(k, l, known)) == pytest.approx(inside, abs=1e-12)
    assert float(unbiased_hsic(k, l, torch.arange(7) < 3)) == 0


def test_it_is_zero_on_average_without_information_and_large_with_all_of_it() -> None:
    torch.manual_seed(1)
    every, labels = torch.ones(60, dtype=torch.bool), torch.arange(60) % 3
    apart = [float(dependence(torch.randn(60, 5), labels, every)) for _ in range(200)]
    mean, error = torch.tensor(apart).mean(), torch.tensor(apart).std() / 200**0.5
    assert abs(mean) < 3 * error
    told = torch.randn(60, 3) * 0.01 + torch.nn.functional.one_hot(labels, 3)
    assert 0.3 < float(dependence(told, labels, every)) <= 1.0
    # a difference of spread alone, which no linear reader finds
    spread = torch.randn(60, 5) * (0.2 + 2 * (labels == 0).float())[:, None]
    assert float(dependence(spread, labels, every)) > 5 * float(error)


def test_to_shrink_codes_changes_nothing() -> None:
    torch.manual_seed(2)
    codes, labels, every = torch.randn(40, 4), torch.arange(40) % 2, torch.ones(40, dtype=torch.bool)
    codes[:, 1] += labels
    one, small = (dependence(scale * codes + 7, labels, every) for scale in (1.0, 0.3))
    assert float(one) == pytest.approx(float(small), abs=1e-2)


def test_it_drives_out_of_means_what_draws_would_hide() -> None:
    """The label shifts a unit by a tenth of the posterior's noise: an adversary on draws sees nothing of it."""
    torch.manual_seed(3)
    units = assign_units([{"name": "excitation_inhibition", "attributes": {"side": 2}}], 6)
    context = GuidanceContext(1, 28, units, {"side": 2})
    labels = torch.arange(200) % 2
    start = torch.randn(200, 6) * 0.02
    start[:, 4] += 0.1 * labels
    found, paper = {}, torch.zeros(200, 1, 28, 28)
    for weight in (0.0, 20.0):
        torch.manual_seed(4)
        guidance = ExcitationInhibition(context, {"side": 2}, excitation=0.0, dependence=weight)
        mapping = torch.nn.Linear(6, 6)
        torch.nn.init.eye_(mapping.weight)
        optimizer = torch.optim.Adam([*mapping.parameters(), *guidance.parameters()], 1e-2)
        for _ in range(150):
            mean = mapping(start)
            posterior = Posterior(mean, torch.zeros_like(mean))
            drawn = posterior.sample()
            inputs = GuidanceInputs(paper, posterior, drawn, torch.nn.Identity(), {"side": labels})
            loss = (
                torch.stack(list(guidance(inputs).values())).sum() + 30 * (mean - start)[:, 2:].square().sum(1).mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rest = mapping(start).detach()[:, 2:]
        rest = (rest - rest.mean(0)) / rest.std(0)
        found[weight] = LogisticRegression(max_iter=500).fit(rest, labels).score(rest, labels)
    assert found[0.0] > 0.95
    assert found[20.0] < 0.7
