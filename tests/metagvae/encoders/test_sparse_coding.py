"""Sparse codes against scikit-learn's lasso and the conditions of its optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import SparseCoder
from sklearn.linear_model import Lasso
from torch import Tensor

from episodes import InputError
from metagvae.encoders.sparse_coding import (
    SOLVERS,
    LassoProblem,
    energy,
    gram_and_rate,
    optimality_gap,
    sparse_codes,
)

PENALTY = 0.3


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    """Eight rows of 24 numbers and 48 atoms, half of them near copies of others: coherent, as learnt ones are."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(24, 24, generator=generator, dtype=torch.float64)
    near = half + 0.5 * torch.randn(24, 24, generator=generator, dtype=torch.float64)
    atoms = F.normalize(torch.cat([half, near]), dim=1)
    return 2 * F.normalize(torch.randn(8, 24, generator=generator, dtype=torch.float64), dim=1), atoms


def _lasso(rows: Tensor, atoms: Tensor, positive: bool) -> Tensor:
    codes = []
    for row in rows.numpy():
        solver = Lasso(alpha=PENALTY / len(row), positive=positive, fit_intercept=False, tol=1e-14, max_iter=10**6)
        codes.append(solver.fit(atoms.numpy().T, row).coef_)
    return torch.from_numpy(np.stack(codes))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(("solver", "steps"), [("fista", 3000), ("lca", 30_000)])
def test_codes_are_those_of_scikit_learn(
    problem: tuple[Tensor, Tensor], solver: str, steps: int, positive: bool
) -> None:
    rows, atoms = problem
    codes = sparse_codes(rows, atoms, PENALTY, steps, solver, positive)
    assert (codes - _lasso(rows, atoms, positive)).abs().max() < 1e-6
    assert 0 < (codes != 0).double().mean() < 0.5  # there is something to choose, and little is chosen


def test_a_second_oracle_agrees(problem: tuple[Tensor, Tensor]) -> None:
    rows, atoms = problem
    coder = SparseCoder(
        atoms.numpy(), transform_algorithm="lasso_cd", transform_alpha=PENALTY, positive_code=True,
        transform_max_iter=10**6,
    )  # fmt: skip
    other = torch.from_numpy(coder.transform(rows.numpy()))
    mine = sparse_codes(rows, atoms, PENALTY, 3000)
    gap = energy(rows, atoms, other, PENALTY) - energy(rows, atoms, mine, PENALTY)
    assert (gap > -1e-12).all()
    assert gap.max() < 1e-3  # its own tolerance stops it early


@pytest.mark.parametrize("positive", [True, False])
def test_default_steps_meet_the_optimum_conditions(problem: tuple[Tensor, Tensor], positive: bool) -> None:
    rows, atoms = problem
    codes = sparse_codes(rows, atoms, PENALTY, positive=positive)
    assert optimality_gap(rows, atoms, codes, PENALTY, positive).max() < 1e-5
    assert optimality_gap(rows, atoms, codes + 0.01, PENALTY, positive).min() > 1e-3
    assert optimality_gap(rows, atoms, torch.zeros_like(codes), PENALTY, positive).max() > 1e-2


def test_energy_falls_within_the_bound_of_fista(problem: tuple[Tensor, Tensor]) -> None:
    rows, atoms = problem
    best = sparse_codes(rows, atoms, PENALTY, 5000)
    lowest = energy(rows, atoms, best, PENALTY)
    rate = gram_and_rate(atoms)[1]
    for steps in (5, 10, 20, 40, 80):
        gap = energy(rows, atoms, sparse_codes(rows, atoms, PENALTY, steps), PENALTY) - lowest
        bound = 2 * best.square().sum(1) / (rate * (steps + 1) ** 2)  # theorem 4.4 of Beck & Teboulle, from zero
        assert (gap <= bound).all()
        assert (gap >= -1e-12).all()


def test_the_code_of_a_row_is_its_own(problem: tuple[Tensor, Tensor]) -> None:
    rows, atoms = problem
    for solver in SOLVERS:
        together = sparse_codes(rows, atoms, PENALTY, 50, solver)
        alone = torch.cat([sparse_codes(row[None], atoms, PENALTY, 50, solver) for row in rows])
        assert (together - alone).abs().max() < 1e-12


def test_the_control_has_no_competition(problem: tuple[Tensor, Tensor]) -> None:
    rows, atoms = problem
    codes = sparse_codes(rows, atoms, PENALTY, solver="one_pass")
    assert torch.equal(codes, (rows @ atoms.T - PENALTY).clamp(min=0))
    assert optimality_gap(rows, atoms, codes, PENALTY).max() > 0.1


def test_blank_rows_and_orthogonal_atoms() -> None:
    atoms = torch.eye(5, dtype=torch.float64)
    rows = torch.tensor([[0.0] * 5, [0.2, -0.9, 0.3, 1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0] * 5, [0.0, 0.0, 0.0, 0.7, 0.0]], dtype=torch.float64)
    signed = torch.tensor([[0.0] * 5, [0.0, -0.6, 0.0, 0.7, 0.0]], dtype=torch.float64)
    for solver in ("fista", "lca"):
        assert torch.allclose(sparse_codes(rows, atoms, 0.3, 400, solver), expected)
        assert torch.allclose(sparse_codes(rows, atoms, 0.3, 400, solver, positive=False), signed)


def test_an_unknown_solver_is_one_sentence(problem: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"unknown solver of sparse codes 'omp'; known: fista, lca, one_pass"):
        sparse_codes(*problem, PENALTY, solver="omp")
    assert LassoProblem(problem[0], problem[1], torch.ones(()), 0.1).shrink(torch.tensor([-1.0, 1.0]), 0.25)[1] == 0.75
