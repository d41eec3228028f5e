"""A run's metrics and config for wandb, where a run asks for it (``run.wandb``, extra ``[wandb]``)."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from episodes import InputError
from episodes.untrusted.plain_files import read_json
from metagvae.storage.atomic_files import write_json

NOTE = "wandb.json"  # which run at wandb a run folder is; wandb's own files are in wandb/ beside it


def client() -> Any:
    """The package; raises `InputError` if it is missing."""
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            "run.wandb needs the package wandb; pip install 'metagvae[wandb]' or pip install wandb."
        ) from error
    return wandb


class WandbLog:
    """One launch of a run at wandb; later launches in the same folder continue the same run there.

    Only metrics and the config are handed over: no code, no git state, no console output. Where to and whether over
    the network is wandb's own affair (``WANDB_MODE=offline``, ``WANDB_BASE_URL``, ``wandb login``).

    Args:
        folder: of the run.
        project: at wandb.
        config: the run's resolved config.

    Raises:
        InputError: if the package is missing or does not start.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        wandb = client()
        settings = wandb.Settings(console="off", disable_git=True, disable_code=True, quiet=True)
        try:
            self._run: Any = wandb.init(
                project=project,
                id=_identity(folder, project),
                resume="allow",
                name=folder.name,
                dir=str(folder),
                config=dict(config),
                settings=settings,
            )
            # steps as an axis of their own: wandb's counter would refuse those that a resumed run takes again
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # it raises many kinds, and those of its transport
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"wandb does not start ({type(error).__name__}: {reason}). Log in (wandb login), set "
                "WANDB_MODE=offline to keep its files in the run folder, or leave out --run.wandb."
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands values over; should that fail, a line on stderr says so and training goes on."""
        if self._run is None:
            return
        try:
            self._run.log({"step": step, **values})
        except Exception as error:
            self._run = None
            print(f"wandb's record ends at step {step} ({error}); training goes on", file=sys.stderr)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def _identity(folder: Path, project: str) -> str:
    """The run's name at wandb, kept in its folder; another project gets another."""
    path = folder / NOTE
    if path.is_file():
        note = read_json(path, "which run at wandb this is")
        if isinstance(note, dict) and note.get("project") == project and isinstance(note.get("id"), str):
            return str(note["id"])
    identity = secrets.token_hex(6)
    write_json(path, {"project": project, "id": identity})
    return identity
