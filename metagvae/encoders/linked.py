"""Links between dictionaries: codes of one modality from those of another, by ridge regression in closed form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from metagvae.encoders.sparse import SparseEncoder

_AT_ONCE = 32  # pictures whose neighbourhoods of codes are unfolded together
_PLACES = 6  # numbers that say where a patch is: 1, y, x, yy, xx, xy


class Ridge:
    """Weights W that minimise |X W - Y|^2 + penalty * |W|^2, of rows that come in parts.

    Args:
        penalty: above 0; in the units of X's squares.

    Example:
        >>> import torch
        >>> from metagvae.encoders.linked import Ridge
        >>> ridge, x = Ridge(1e-9), torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ridge.add(x, x @ torch.tensor([[1.0], [2.0], [3.0]]))
        >>> ridge.weights().squeeze().round().tolist()
        [1.0, 2.0, 3.0]
    """

    def __init__(self, penalty: float) -> None:
        if not penalty > 0:
            raise InputError(f"a ridge's penalty must be above 0; received {penalty}.")
        self.penalty = penalty
        self._gram: Tensor | None = None
        self._cross: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Counts rows ``[B, p]`` and their answers ``[B, q]``."""
        gram, cross = (x.T @ x).double(), (x.T @ y).double()
        self._gram = gram if self._gram is None else self._gram + gram
        self._cross = cross if self._cross is None else self._cross + cross

    def weights(self) -> Tensor:
        """float32 ``[p, q]``."""
        if self._gram is None or self._cross is None:
            raise InputError("a ridge has no weights before any rows were added.")
        eye = torch.eye(len(self._gram), dtype=torch.float64, device=self._gram.device)
        solved: Tensor = torch.linalg.solve(self._gram + self.penalty * eye, self._cross)
        return solved.float()


class CodeLink(nn.Module):
    """Pictures of one modality to pictures of another, through a dictionary of each and a ridge map between codes.

    The code of the other modality at a place is predicted from the codes of the patches around that place and from
    where it is, is cut at zero, and the patches that it stands for are put together. Each dictionary is learnt without
    the other modality; the link alone needs pairs. A link by one joint dictionary ties an atom's threshold to
    the other modality's part of it; two dictionaries keep both whole.

    Args:
        source, target: encoders whose patches lie at the same places.
        reach: patches on each side of a place that are looked at.
        penalty: of the ridge.

    Raises:
        InputError: if the places differ.
    """

    weights: Tensor

    def __init__(self, source: SparseEncoder, target: SparseEncoder, reach: int = 1, penalty: float = 10.0) -> None:
        super().__init__()
        places = source.patches.places
        if places != target.patches.places:
            raise InputError(
                f"linked dictionaries need patches at the same places; received {places} and "
                f"{target.patches.places} in each direction. Give both the same side, stride and pad."
            )
        self.source, self.target, self.reach, self.penalty = source, target, reach, penalty
        length = source.config.atoms * (2 * reach + 1) ** 2 + _PLACES
        self.register_buffer("weights", torch.zeros(length, target.config.atoms))

    @torch.no_grad()
    def fit(self, source: Tensor, target: Tensor) -> CodeLink:
        """Solves the link from codes of paired pictures, ``[M, places, places, atoms]`` of each modality."""
        ridge = Ridge(self.penalty)
        for part in torch.arange(len(source)).split(_AT_ONCE):
            ridge.add(self._around(source[part]).flatten(0, 1), target[part].flatten(0, 2))
        self.weights.copy_(ridge.weights())
        return self

    def _around(self, codes: Tensor) -> Tensor:
        """Codes around each place, and where it is: ``[B, places * places, length]``."""
        places = codes.shape[1]
        near = F.unfold(codes.permute(0, 3, 1, 2), 2 * self.reach + 1, padding=self.reach).transpose(1, 2)
        line = torch.linspace(-1, 1, places, dtype=codes.dtype, device=codes.device)
        y, x = (grid.flatten() for grid in torch.meshgrid(line, line, indexing="ij"))
        where = torch.stack([torch.ones_like(y), y, x, y * y, x * x, x * y], -1)
        return torch.cat([near, where.expand(len(codes), -1, -1)], -1)

    @torch.no_grad()
    def from_codes(self, codes: Tensor) -> Tensor:
        """Pictures of the target's modality, of codes ``[B, places, places, atoms]`` of the source's."""
        places = codes.shape[1]
        parts = [
            self.target.put_together((self._around(part) @ self.weights).clamp(min=0).unflatten(1, (places, places)))
            for part in codes.split(_AT_ONCE)
        ]
        return torch.cat(parts)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B, C', size, size]`` of the target's modality from the source's ``[B, C, size, size]``."""
        return self.from_codes(self.source.codes(pictures))
