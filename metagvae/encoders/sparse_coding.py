"""Sparse codes of rows under a dictionary: FISTA, LCA, and the one pass that is their control.

All of them minimise, or are to be compared with who minimises, the lasso's energy of one row x

    1/2 |x - a D|^2 + penalty * |a|_1,        a >= 0 where codes are positive,

with the atoms, of length 1, in the rows of D. Rows never meet: the code of a row is the same alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from episodes.registry import Registry


@dataclass(frozen=True)
class LassoProblem:
    """The lasso of many rows, as the solvers see it: only through products with atoms.

    Args:
        products: rows times atoms, x D', ``[P, k]``.
        gram: atoms times atoms, D D', ``[k, k]``.
        rate: at most 1 / (largest eigenvalue of ``gram``), a scalar.
        penalty: weight of the codes' sum, in the rows' units.
        positive: whether codes are at least 0.
    """

    products: Tensor
    gram: Tensor
    rate: Tensor
    penalty: float
    positive: bool = True

    def shrink(self, values: Tensor, by: Any) -> Tensor:
        """Values drawn towards zero by ``by``, a number or a scalar; those that would cross zero are set to it."""
        shrunk: Tensor = (values - by).clamp(min=0) if self.positive else values - values.clamp(-by, by)
        return shrunk


Solver = Callable[[LassoProblem, int], Tensor]
SOLVERS: Registry[Solver] = Registry("solver of sparse codes")
_LOOK = 4  # steps between looks at whether momentum points uphill; each look costs as much as a step


def gram_and_rate(dictionary: Tensor) -> tuple[Tensor, Tensor]:
    """D D' and the reciprocal of its largest eigenvalue, of atoms ``[k, p]``; once for each dictionary."""
    gram = dictionary @ dictionary.T
    return gram, 1 / torch.linalg.eigvalsh(gram)[-1].clamp(min=1e-12)


@SOLVERS.named("fista")
def _fista(problem: LassoProblem, steps: int) -> Tensor:
    """Accelerated proximal gradient whose momentum each row drops by itself when it points uphill."""
    rate, shift = problem.rate, problem.rate * problem.penalty
    eye = torch.eye(len(problem.gram), dtype=problem.gram.dtype, device=problem.gram.device)
    keep, drive = eye - rate * problem.gram, rate * problem.products
    if problem.positive:  # the shift is made once for all steps
        drive = drive - shift
    code = ahead = torch.zeros_like(drive)
    pace = torch.ones_like(drive[:, :1])
    for step in range(steps):
        reached = torch.addmm(drive, ahead, keep)
        following = reached.clamp_(min=0) if problem.positive else problem.shrink(reached, shift)
        if step % _LOOK == _LOOK - 1:
            uphill = ((ahead - following) * (following - code)).sum(1, keepdim=True) > 0
            pace = pace.masked_fill(uphill, 1.0)
        faster = 0.5 + (0.25 + pace * pace).sqrt()
        ahead = torch.lerp(following, code, (1 - pace) / faster)
        code, pace = following, faster
    return code


@SOLVERS.named("lca")
def _lca(problem: LassoProblem, steps: int) -> Tensor:
    """Euler steps of the circuit u' = (b - u - a (D D' - I)) / tau, a = shrink(u), with 1 / tau the problem's rate."""
    membrane = torch.zeros_like(problem.products)
    for _ in range(steps):
        code = problem.shrink(membrane, problem.penalty)
        inhibited = torch.addmm(problem.products, code, problem.gram, alpha=-1) + code
        membrane = torch.lerp(membrane, inhibited, problem.rate)
    return problem.shrink(membrane, problem.penalty)


@SOLVERS.named("one_pass")
def _one_pass(problem: LassoProblem, steps: int) -> Tensor:
    """Products beyond the threshold, without any competition among atoms: the control of the other two."""
    return problem.shrink(problem.products, problem.penalty)


def sparse_codes(
    rows: Tensor,
    dictionary: Tensor,
    penalty: float,
    steps: int = 400,
    solver: str = "fista",
    positive: bool = True,
) -> Tensor:
    """Sparse codes of rows.

    After the 400 steps FISTA's codes of patches meet the lasso's optimality conditions to 1e-5 or better
    (`optimality_gap` measures that); LCA reaches the same codes in some ten times as many.

    Args:
        rows: ``[P, p]``.
        dictionary: atoms of length 1, ``[k, p]``.
        penalty: weight of the codes' sum; a row whose largest product with an atom is no larger has the code 0.
        solver: ``fista`` (Beck & Teboulle, SIAM J. Imaging Sciences 2009, eq. 4.1 to 4.3, with the gradient restart
            of O'Donoghue & Candes, Found. Comput. Math. 2015, per row), ``lca`` (Rozell, Johnson, Baraniuk & Olshausen,
            Neural Computation 2008, eq. 3.1) or ``one_pass``.
        positive: whether codes are at least 0.

    Returns:
        ``[P, k]``.

    Raises:
        InputError: for an unknown solver.

    Example:
        >>> import torch
        >>> from metagvae.encoders.sparse_coding import sparse_codes
        >>> atoms = torch.eye(3)
        >>> sparse_codes(torch.tensor([[1.0, 0.2, 0.5]]), atoms, penalty=0.25)
        tensor([[0.7500, 0.0000, 0.2500]])
    """
    gram, rate = gram_and_rate(dictionary)
    problem = LassoProblem(rows @ dictionary.T, gram, rate, penalty, positive)
    return SOLVERS.find(solver)(problem, steps)


def energy(rows: Tensor, dictionary: Tensor, codes: Tensor, penalty: float) -> Tensor:
    """The lasso's energy of each row, ``[P]``: what the codes minimise."""
    return 0.5 * (rows - codes @ dictionary).square().sum(-1) + penalty * codes.abs().sum(-1)


def optimality_gap(rows: Tensor, dictionary: Tensor, codes: Tensor, penalty: float, positive: bool = True) -> Tensor:
    """How far each row's code is from meeting the lasso's optimality (KKT) conditions, ``[P]``; 0 at the minimum.

    With g the product of the residual and an atom: g = penalty * sign(a) where the atom is active; where it is not,
    g <= penalty for positive codes and |g| <= penalty for the others.
    """
    slopes = (rows - codes @ dictionary) @ dictionary.T
    active = (slopes - penalty * codes.sign()).abs()
    idle = ((slopes if positive else slopes.abs()) - penalty).clamp(min=0)
    return torch.where(codes != 0, active, idle).amax(-1)
