"""The work of `metagvae identify warps`: does one latent unit answer to each way an image can be warped?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from episodes import AugmentConfig, ImageBank, InputError, to_float, warp
from episodes.augment import PARAMETERS
from episodes.counter_rng import check_seed
from metagvae.compute.device import Device
from metagvae.config.parse import section
from metagvae.evaluation.identifiability import Rows, correlations, mcc
from metagvae.evaluation.text_table import table_of
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.methods import describe
from metagvae.zoo.trained import Trained

AT_ONCE = 500
MOST_IMAGES = 10_000


@dataclass(frozen=True)
class WarpUnits:
    """Correlation of units with warp parameters, unit by unit, on images of unseen classes.

    Args:
        name: of the run.
        units: which units the parameters were matched with, by group name.
        each: of the matched unit with each parameter, in [0, 1]; only parameters that the run's warps move.
        unit: number of the matched unit by parameter, among the latent's.
        places: the same among the units of the group; -1 where none is left.
        score: the mean of ``each``.
        together: correlation of the best linear reading from all of the units with each parameter: what they hold of
            it, whether one unit has it or it is mixed among them.
        every: of each unit (a row) with each parameter, whether matched or not.
        images: how many were warped twice.
    """

    name: str
    units: str
    each: dict[str, float]
    unit: dict[str, int]
    places: dict[str, int]
    score: float
    together: dict[str, float]
    every: list[list[float]]
    images: int
    about: dict[str, Any]


@torch.no_grad()
def warp_units(trained: Trained, group: str, split: str, seed: int, device: Device) -> WarpUnits:
    """Warps each image twice and compares differences of units with differences of parameters.

    Half of the images assign a unit to each parameter, the other half are scored.

    Args:
        trained: a run that warped its images.
        group: the units, such as ``geometry`` or ``latent``.

    Raises:
        InputError: if the run has no such units, or did not warp.
    """
    check_seed(seed, "--seed")
    strengths = section(AugmentConfig, trained.config, "augment", trained.name)
    encoder = trained.encoder([group])
    bank = trained.data.make().load(split)
    images = _some(bank, seed)
    generator = torch.Generator().manual_seed(seed)
    codes, moves = [], []
    device.place(encoder)
    for batch in images.split(AT_ONCE):
        views = [warp(to_float(batch), strengths, generator) for _ in range(2)]
        one, other = (encoder(device.layout(view.images.to(device.device))).float().cpu() for view in views)
        codes.append(one - other)
        moves.append(views[0].parameters - views[1].parameters)
    code, moved = torch.cat(codes).numpy(), torch.cat(moves).numpy()
    known = [number for number in range(len(PARAMETERS)) if moved[:, number].any()]
    if not known:
        raise InputError(f"{trained.name} did not warp its images: its section augment has no strength above 0.")
    half, moved = len(code) // 2, moved[:, known]
    match = mcc(code[half:], moved[half:], code[:half], moved[:half])
    names = [PARAMETERS[number] for number in known]
    numbers = trained.encoder().units.get(group, list(range(code.shape[1])))
    return WarpUnits(
        name=Path(trained.name).name,
        units=group,
        each=dict(zip(names, match.each, strict=True)),
        unit={name: numbers[unit] if unit >= 0 else -1 for name, unit in zip(names, match.units, strict=True)},
        places=dict(zip(names, match.units, strict=True)),
        score=match.score,
        together=dict(zip(names, _read_together(code, moved), strict=True)),
        every=correlations(code[half:], moved[half:]).round(3).tolist(),
        images=len(code),
        about=describe(trained),
    )


def _read_together(code: Rows, moved: Rows) -> list[float]:
    """Correlation of each parameter's differences with their least-squares reading, solved on half of the rows."""
    half = len(code) // 2
    weights = np.linalg.lstsq(code[:half], moved[:half], rcond=None)[0]
    return [float(value) for value in correlations(code[half:] @ weights, moved[half:]).diagonal()]


def _some(bank: ImageBank, seed: int) -> torch.Tensor:
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))
    return bank.images[order[:MOST_IMAGES]]


def table(found: Sequence[WarpUnits]) -> str:
    """Two rows for each run, single units and all read together: the mean, then every parameter."""
    return table_of(plain(found))


def plain(found: Sequence[WarpUnits]) -> list[dict[str, str]]:
    """Rows of text, a table's cells by column."""
    names = [name for name in PARAMETERS if any(name in row.each for row in found)]
    return [
        {
            "run": row.name,
            "units": f"{row.units}, {how}",
            "mean": f"{np.mean(list(values.values())):.3f}",
            **{name: f"{values[name]:.2f}" if name in values else "-" for name in names},
        }
        for row in found
        for how, values in (("one by one", row.each), ("read together", row.together))
    ]


def save(found: Sequence[WarpUnits], path: Path) -> None:
    """Writes all rows as JSON."""
    about = (
        "Correlation with each warp parameter's differences between two warps of an image. One by one: of one unit's "
        "differences, whose mean is the MCC; read together: of the best linear reading from all of the units. Scored "
        "on other images than units were assigned and the reading was solved on."
    )
    facts = {"provenance": provenance(), "about": about, "rows": plain(found), "units": [asdict(row) for row in found]}
    write_json(path, facts)
