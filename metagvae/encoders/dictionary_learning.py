"""Dictionary learning from batches of rows: online, without a step size, and by a local rule."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.counter_rng import seed_for
from metagvae.encoders.sparse_coding import energy, sparse_codes

DEAD = 1e-6  # of an atom's mean squared code, under which it is one that nothing needs
BLANK = 1e-3  # length of a row under which it says nothing of what an atom should be
_ORDER, _REPLACED = 11, 12


class DictionaryLearner(nn.Module):
    """A dictionary and what it remembers of the rows seen so far; its buffers are the whole state.

    Args:
        rows: at least as many rows that are not blank as there shall be atoms, ``[M, p]``; these are drawn from them.
        atoms: how many.
        penalty: of the codes that it learns from.
        rule: ``online``, block coordinate descent on the remembered moments of codes and rows (Mairal, Bach, Ponce &
            Sapiro, ICML 2009, algorithms 1 and 2; older moments fade as in section 3.4.2, by (1 - 1/t)^1.5), which has
            no step size; ``local``, D <- D + rate * a'(x - a D) / B, in which an atom sees its own code and the
            residual alone.
        rate: of the local rule, falling as rate / (1 + t / 100).
        steps: of the solver in each update.
        seed: of the atoms drawn at the start and for those that nothing uses.

    Raises:
        InputError: if there are too few rows, or the rule is unknown.

    Example:
        >>> import torch
        >>> from metagvae.encoders.dictionary_learning import DictionaryLearner
        >>> rows = torch.rand(500, 12, generator=torch.Generator().manual_seed(0))
        >>> learner = DictionaryLearner(rows, atoms=8, penalty=0.1)
        >>> first = learner.update(rows)["loss"]
        >>> for _ in range(20):
        ...     terms = learner.update(rows)
        >>> bool(terms["loss"] < first)
        True
    """

    dictionary: Tensor
    code_moments: Tensor
    row_moments: Tensor
    updates: Tensor

    def __init__(
        self,
        rows: Tensor,
        atoms: int,
        penalty: float,
        rule: Literal["online", "local"] = "online",
        rate: float = 1.0,
        steps: int = 60,
        positive: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rule not in ("online", "local"):
            raise InputError(f"a dictionary's rule must be 'online' or 'local'; received {rule!r}.")
        lively = rows[rows.norm(dim=1) > BLANK]
        if len(lively) < atoms:
            raise InputError(
                f"{atoms} atoms need as many rows that are not blank to start from; received {len(lively)} of "
                f"{len(rows)}. Lower atoms, or give more images."
            )
        self.penalty, self.rule, self.rate = penalty, rule, rate
        self.steps, self.positive, self.seed = steps, positive, seed
        generator = torch.Generator().manual_seed(seed_for(seed, _ORDER))
        chosen = torch.randperm(len(lively), generator=generator)[:atoms]
        self.register_buffer("dictionary", F.normalize(lively[chosen.to(lively.device)], dim=1))
        self.register_buffer("code_moments", rows.new_zeros(atoms, atoms))
        self.register_buffer("row_moments", rows.new_zeros(atoms, rows.shape[1]))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> dict[str, Tensor]:
        """One step of learning from rows ``[B, p]``, and how they were coded before it.

        Returns:
            ``loss`` (the mean energy), ``active`` (mean atoms in use) and ``left`` (the share of squares that is
            not explained).
        """
        codes = sparse_codes(rows, self.dictionary, self.penalty, self.steps, positive=self.positive)
        self.updates += 1
        count = int(self.updates)
        residual = rows - codes @ self.dictionary
        terms = {
            "loss": energy(rows, self.dictionary, codes, self.penalty).mean(),
            "active": (codes != 0).sum(1).float().mean(),
            "left": residual.square().sum() / rows.square().sum().clamp(min=1e-12),
        }
        keep = (1 - 1 / count) ** 1.5
        self.code_moments.mul_(keep).addmm_(codes.T, codes, alpha=1 / len(rows))
        self.row_moments.mul_(keep).addmm_(codes.T, rows, alpha=1 / len(rows))
        if self.rule == "online":
            self._descend()
        else:
            step = self.rate / (1 + count / 100)
            self.dictionary.copy_(F.normalize(self.dictionary.addmm(codes.T, residual, alpha=step / len(rows)), dim=1))
        self._replace_dead(rows, count)
        return terms

    def _descend(self) -> None:
        """One pass of block coordinate descent over the atoms, each the best one given the others."""
        uses = self.code_moments.diagonal().clamp(min=DEAD)
        for atom in range(len(self.dictionary)):
            pull = self.row_moments[atom] - self.code_moments[atom] @ self.dictionary
            self.dictionary[atom] = F.normalize(self.dictionary[atom] + pull / uses[atom], dim=0)

    def _replace_dead(self, rows: Tensor, count: int) -> None:
        """Puts rows of the batch in for the atoms that no code has used of late."""
        dead = (self.code_moments.diagonal() <= DEAD).nonzero().squeeze(1)
        lively = rows[rows.norm(dim=1) > BLANK]
        if not len(dead) or not len(lively):
            return
        generator = torch.Generator().manual_seed(seed_for(self.seed, _REPLACED, count))
        chosen = torch.randint(len(lively), (len(dead),), generator=generator)
        self.dictionary[dead] = F.normalize(lively[chosen.to(lively.device)], dim=1)
        self.row_moments[dead] = 0
        self.code_moments[dead] = 0
        self.code_moments[:, dead] = 0


def matched_cosines(found: Tensor, planted: Tensor) -> Tensor:
    """|cosine| of each planted atom ``[k, p]`` with the found one that the best matching gives it, ``[k]``."""
    from scipy.optimize import linear_sum_assignment

    cosines = (F.normalize(planted, dim=1) @ F.normalize(found, dim=1).T).abs()
    ours, theirs = linear_sum_assignment(-cosines.cpu().numpy())
    matched: Tensor = cosines[ours, theirs]
    return matched
