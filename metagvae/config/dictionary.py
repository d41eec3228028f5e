"""The settings of sparse codes, and the section of a config that a dictionary of patches is learnt by."""

from __future__ import annotations

from dataclasses import dataclass

from episodes import InputError


@dataclass
class SparseSettings:
    """Sparse codes of patches, and the feature that an image's codes are put together to.

    Args:
        side: of a patch in pixels; the images' own size codes whole images.
        stride: pixels between the patches that are coded.
        pad: empty pixels around the image; null takes half a patch, and none for whole images.
        whiten: even out the patches' contrast and whiten them, for photographs.
        atoms: of the dictionary.
        penalty: lambda, the weight of the codes' sum; larger is sparser.
        steps: of the solver.
        solver: fista | lca | one_pass, the control without competition among atoms.
        positive: whether codes are at least 0.
        pool: max | mean of an atom's codes within a cell of the grid.
        grid: cells of the image in each direction.
        cell: places of a patch on each side of a cell; null splits the image evenly, more lets neighbours overlap.
        power: that the pooled codes' sizes are raised to; below 1 it evens out strong and weak answers.
        centre: subtract the mean of the training images' pooled codes.
        components: keep so many of these codes' principal directions, found on training images; null keeps all codes
            as they are. Needs centre.
        balance: of the kept directions' spreads: 0 leaves them as they are, 1 makes them equal.
        unit: bring an image's feature to length 1.
    """

    side: int = 9
    stride: int = 2
    pad: int | None = None
    whiten: bool = False
    atoms: int = 128
    penalty: float = 0.6
    steps: int = 60
    solver: str = "fista"
    positive: bool = True
    pool: str = "max"
    grid: int = 4
    cell: int | None = None
    power: float = 0.5
    centre: bool = True
    components: int | None = None
    balance: float = 0.25
    unit: bool = True


@dataclass
class DictionarySection(SparseSettings):
    """A dictionary of patches and the sparse encoder around it; learnt without labels and without gradients.

    Args:
        rule: online (block coordinate descent, no step size) | local (Hebbian, on the residual) | patches (training
            patches as they are, the control without learning) | gaussian (random atoms, the control without data).
        rate: of the local rule.
        patches: drawn from each image of a batch.
    """

    rule: str = "online"
    rate: float = 1.0
    patches: int = 8

    def __post_init__(self) -> None:
        if self.rule not in ("online", "local", "patches", "gaussian"):
            raise InputError(
                f"dictionary.rule must be 'online', 'local', 'patches' or 'gaussian'; received {self.rule!r}."
            )
        if not (0 < self.rate <= 1e6 and 1 <= self.patches <= 10_000):
            raise InputError(
                "dictionary needs a rate above 0 and patches from 1 to 10,000; received "
                f"{self.rate} and {self.patches}."
            )
