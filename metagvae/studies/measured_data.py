"""The data set that runs and encoders are measured on, with what the first run among them says of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from episodes import InputError
from episodes.datasets import Dataset, make_dataset
from episodes.paths import expanded
from episodes.untrusted.plain_files import read_json
from metagvae.config.parse import section
from metagvae.config.sections import DataConfig
from metagvae.encoders.joined import parts
from metagvae.runs.run import read_config


def choose_dataset(
    sources: Sequence[str],
    name: str | None,
    root: str | None = None,
    size: int | None = None,
    rotations: str | None = None,
    options: dict[str, Any] | None = None,
) -> Dataset:
    """The data set to measure on; what is not given comes from the first run among ``sources``.

    So that a run is measured on the split that its own data section sets apart, and nothing has to be said twice.
    """
    named = [part for source in sources for part in parts(source)]
    run = next((s for s in named if (expanded(s) / "config.yaml").is_file()), None)
    inherited: dict[str, Any] = asdict(section(DataConfig, read_config(run), "data", run)) if run else {}
    if name not in (None, inherited.get("name")):
        inherited = {}
    if run and root is None and inherited.get("root"):
        _check_root(run, inherited)
    return make_dataset(
        name or inherited.get("name", "glyphs"),
        {**inherited.get("options", {}), **(options or {})},
        root=root if root is not None else inherited.get("root"),
        size=size if size is not None else inherited.get("size"),
        rotations=rotations if rotations is not None else inherited.get("rotations", "none"),
    )


def _check_root(run: str, data: dict[str, Any]) -> None:
    """Raises `InputError` if the pictures a run was trained on are not where its config says.

    It says so from the root on; runs of older versions kept the path as it was typed, in another folder perhaps.
    """
    place = expanded(data["root"])
    if not place.exists():
        raise InputError(
            f"the run {run} was trained on the pictures in {place}, which are not there now; say where they are: "
            "--root FOLDER."
        )
    noted = expanded(run) / "data.json"
    if place.is_absolute() or not noted.is_file():
        return
    before = read_json(noted, "what a run notes of its pictures")
    now = make_dataset(data["name"], data["options"], **{key: data[key] for key in ("root", "size", "rotations")})
    found = now.load("train")
    if (
        not isinstance(before, dict)
        or before.get("fingerprint") != found.fingerprint
        or (before.get("pixels", found.pixels) != found.pixels)
    ):
        raise InputError(
            f"the run {run} was trained on {data['root']}, as seen from another folder: the pictures in "
            f"{place.absolute()} are others. Say where its own are: --root FOLDER."
        )
