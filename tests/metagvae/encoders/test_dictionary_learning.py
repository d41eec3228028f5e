"""Dictionaries learnt from rows of known making."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from metagvae.encoders.dictionary_learning import DictionaryLearner, matched_cosines


def _planted(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of three positive atoms each out of 40 in 20 dimensions, and these atoms."""
    generator = torch.Generator().manual_seed(seed)
    atoms = F.normalize(torch.randn(40, 20, generator=generator), dim=1)
    codes = torch.zeros(count, 40)
    chosen = torch.stack([torch.randperm(40, generator=generator)[:3] for _ in range(count)])
    codes.scatter_(1, chosen, 0.5 + torch.rand(count, 3, generator=generator))
    return codes @ atoms + 0.01 * torch.randn(count, 20, generator=generator), atoms


@pytest.mark.parametrize("rule", ["online", "local"])
def test_a_planted_dictionary_is_found(rule: Literal["online", "local"]) -> None:
    rows, planted = _planted(5000)
    learner = DictionaryLearner(rows, 40, penalty=0.1, rule=rule, rate=20.0, steps=20)
    start = matched_cosines(learner.dictionary, planted).mean()
    for epoch in range(12):
        for batch in rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch))].split(250):
            learner.update(batch)
    assert matched_cosines(learner.dictionary, planted).mean() >= 0.95
    assert start < 0.9
    assert torch.allclose(learner.dictionary.norm(dim=1), torch.ones(40), atol=1e-5)


@pytest.mark.parametrize("positive", [True, False])
def test_an_update_lowers_the_energy_it_minimises(positive: bool) -> None:
    rows, _ = _planted(500)
    learner = DictionaryLearner(rows, 30, penalty=0.2, positive=positive)
    losses = [float(learner.update(rows)["loss"]) for _ in range(8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_an_unused_atom_is_replaced_by_a_row() -> None:
    rows = F.pad(_planted(400)[0], (0, 1))  # nothing in the last place
    learner = DictionaryLearner(rows, 10, penalty=0.1)
    learner.dictionary[3] = F.one_hot(torch.tensor(20), 21).float()
    learner.update(rows)
    assert float((F.normalize(rows, dim=1) @ learner.dictionary[3]).max()) > 1 - 1e-5


def test_the_state_is_all_there_is() -> None:
    rows, _ = _planted(1000)
    straight = DictionaryLearner(rows, 12, penalty=0.1)
    for batch in rows.split(100):
        straight.update(batch)
    first = DictionaryLearner(rows, 12, penalty=0.1)
    for batch in rows.split(100)[:4]:
        first.update(batch)
    second = DictionaryLearner(rows.flip(0), 12, penalty=0.1)
    second.load_state_dict(first.state_dict())
    for batch in rows.split(100)[4:]:
        second.update(batch)
    assert torch.equal(second.dictionary, straight.dictionary)


def test_too_few_rows_are_one_sentence() -> None:
    with pytest.raises(InputError, match=r"12 atoms need as many rows that are not blank .* received 5 of 9"):
        DictionaryLearner(torch.cat([torch.rand(5, 4), torch.zeros(4, 4)]), 12, 0.1)
    with pytest.raises(InputError, match="rule must be 'online' or 'local'; received 'sgd'"):
        DictionaryLearner(torch.rand(9, 4), 2, 0.1, rule="sgd")  # type: ignore[arg-type]
