"""Run folders: the resolved config, metrics, TensorBoard events, the newest states, what was exported."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

import metagvae
from episodes import ImageBank, InputError
from episodes.paths import expanded
from episodes.untrusted.plain_files import read_json, read_yaml, yaml_text
from episodes.whole_files import write_beside
from metagvae.compute.processes import ranks
from metagvae.config.optimisation import OptimSection
from metagvae.runs.metrics_log import MetricsLog
from metagvae.runs.states import States
from metagvae.runs.wandb_log import WandbLog, client
from metagvae.storage.atomic_files import check_links, is_remnant, make_folder, sweep, write_json
from metagvae.storage.folder_lock import FolderLock

# a path that begins a word or a value, up to its last slash
_PLACE = re.compile(r"(?:(?<=^)|(?<=[=\s:,'\"\[({]))(?:~[^/\s]*/|\.\./|/)(?:[^/,'\"\])}=]*/)*")

# of a VAE whose config is from before these could be chosen
_BEFORE_CHOICE = {"prior": {"name": "standard_normal"}, "inference": {"name": "amortised"}, "free_bits": 0.0}


def provenance() -> dict[str, Any]:
    """The command, versions and commit that a result came from."""
    here = Path(metagvae.__file__).parent.parent
    commit = None
    if (here / ".git").exists():
        question = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            commit = subprocess.run(question, capture_output=True, text=True, check=False).stdout.strip() or None
        except OSError:  # a checkout on a machine without git
            commit = None
    program = Path(sys.argv[0]).name
    return {
        "command": shlex.join(["metagvae" if program == "__main__.py" else program, *sys.argv[1:]]),
        "metagvae": metagvae.__version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": commit,
        "threads": torch.get_num_threads(),
        "processes": ranks().size,
    }


def without_places(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """A `provenance` for others to read: of a path from the root, from home or upwards, only its last part."""
    words = [_PLACE.sub("", word) for word in shlex.split(made_by["command"])]
    return {**made_by, "command": shlex.join(words)}


class Run:
    """One run's folder, locked for as long as the object is open. Use it as a context manager.

    Args:
        folder: its path.
        kind: ``pretrain`` or ``train``.
        config: the resolved config, plain containers.
        resume: True goes on with what the folder holds; False needs a new or empty one; ``auto`` does what fits.
        precision: what a new run computes in, noted for `begun_precision`.

    Raises:
        InputError: if the folder holds something and ``resume`` is off, holds no run and ``resume`` is on,
            was made by another config, is in use by another process, or cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: str,
        config: Mapping[str, Any],
        resume: bool | Literal["auto"],
        precision: str = "auto",
    ) -> None:
        self.folder = expanded(folder)
        self.states = States(self.folder / "state")
        self.provenance = provenance()
        self._metrics: MetricsLog | None = None
        self._wandb: WandbLog | None = None
        config = self._config = _from_anywhere({"kind": kind, **config})
        if self._project:
            client()  # says so now if it is missing
        text = yaml_text(config)  # says so now if it could not be read back
        check_links(self.folder)
        self._holds_run(config, resume)  # nothing is written into a folder that cannot be used
        make_folder(self.states.folder)
        self._lock = FolderLock(self.folder)
        try:
            sweep(self.folder)
            if not self._holds_run(config, resume):
                write_json(self.folder / "provenance.json", {**self.provenance, "precision": precision})
                # last: with its config a folder is a run
                write_beside(self.folder / "config.yaml", text.encode())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _holds_run(self, config: Mapping[str, Any], resume: bool | Literal["auto"]) -> bool:
        """Whether the folder holds this run; not if it is new, or a crash left it before it had a config."""
        if (self.folder / "config.yaml").is_file():
            if resume is False:
                raise InputError(
                    f"{self.folder} is not empty; a run needs a folder of its own. Give another --run.folder, or "
                    "--run.resume auto to go on with the run in it."
                )
            self._check_same(read_config(self.folder), config)
            return True
        there = self.folder.exists()
        if resume is True and not there:
            raise InputError(f"{self.folder} holds no run to resume; leave out --run.resume to start one.")
        if there and (not self.folder.is_dir() or any(_foreign(path) for path in self.folder.iterdir())):
            raise InputError(
                f"{self.folder} is not empty and holds no run; a run needs a folder of its own. Give another "
                "--run.folder."
            )
        return False

    def _check_same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        # where a run lies and how it is watched may change between launches, what it computes may not
        def essence(config: Mapping[str, Any]) -> dict[str, Any]:
            run = config.get("run", {})
            kept = {"run.seed": run.get("seed"), "run.deterministic": run.get("deterministic", False)}
            # where the pictures lie may change too: `check_data` knows them again
            data = {key: value for key, value in config.get("data", {}).items() if key != "root"}
            # so may how a step is launched: captured or not, it is the same step
            optim = {key: value for key, value in config.get("optim", {}).items() if key != "graph"}
            if optim:  # an older version had no choice of these
                optim = {"betas": OptimSection().betas, **optim}
            others = {key: value for key, value in config.items() if key != "run"}
            if isinstance(others.get("vae"), Mapping):
                others["vae"] = {**_BEFORE_CHOICE, **others["vae"]}
            return {**others, "data": data, "optim": optim, **kept}

        before, after = _set(essence(_from_anywhere(old))), _set(json.loads(json.dumps(essence(new))))
        if isinstance(before.get("attributes"), Mapping) and isinstance(after.get("attributes"), Mapping):
            # an older version did not know all of the images' attributes, so no guidance of this run learns the others
            after["attributes"] = {
                key: after["attributes"][key] for key in before["attributes"] if key in after["attributes"]
            }
        differing = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        if differing:
            raise InputError(
                f"{self.folder} was made with another config: {', '.join(differing)} differ. Resume with the run's "
                f"own config ({self.folder / 'config.yaml'}), or start a new folder."
            )

    def check_data(self, bank: ImageBank) -> None:
        """Notes which pictures the run is trained on.

        Raises:
            InputError: if a resumed run began with others: it would end as neither run would have.
        """
        path = self.folder / "data.json"
        now = {
            "dataset": bank.dataset,
            "split": bank.split,
            "fingerprint": bank.fingerprint,
            "pixels": bank.pixels,
        }
        if not path.is_file():
            write_json(path, now)
            return
        try:
            before = read_json(path, "what the run notes of its pictures")
            text = f"{before['dataset']} (fingerprint {before['fingerprint']}, pixels {before.get('pixels')})"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged ({error}). If the pictures are those that the run began with, delete it."
            ) from error
        if {"pixels": now["pixels"], **before} != now:  # of an older version, which noted no pixels
            raise InputError(
                f"{self.folder} was trained on {text}, says {path.name}, and the pictures now are {now['dataset']} "
                f"(fingerprint {now['fingerprint']}, pixels {now['pixels']}). Resume with the same pictures, or start "
                f"a new folder. If only another Pillow's decoding made pixels differ, delete {path.name} to go on."
            )

    @property
    def _project(self) -> str | None:
        """The project at wandb that is to get the metrics too."""
        project: str | None = self._config.get("run", {}).get("wandb")
        return project

    def start_metrics(self, step: int) -> None:
        """Opens ``metrics.jsonl`` and TensorBoard's file after ``step`` steps, and wandb if asked."""
        self._metrics = MetricsLog(self.folder, step)
        if self._project:
            self._wandb = WandbLog(self.folder, self._project, self._config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        assert self._metrics is not None
        self._metrics.log(step, values)
        if self._wandb is not None:
            self._wandb.log(step, values)

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._wandb is not None:
            self._wandb.close()
        self._lock.release()


def _from_anywhere(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose pictures are found from whatever folder it is read in: their paths from the root on."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return dict(config)
    options = data.get("options")
    placed = {**data, "root": _absolute(data.get("root"))}
    if isinstance(options, Mapping) and "splits_csv" in options:
        placed["options"] = {**options, "splits_csv": _absolute(options["splits_csv"])}
    return {**config, "data": placed}


def _absolute(path: Any) -> Any:
    return str(expanded(path).absolute()) if isinstance(path, str) else path


class _Elsewhere(Run):
    """A run whose folder another process writes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.provenance = expanded(folder), provenance()
        self.states = _NoStates(self.folder / "state")

    def check_data(self, bank: ImageBank) -> None:
        pass

    def start_metrics(self, step: int) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _NoStates(States):
    def save(self, step: int, state: Mapping[str, Any]) -> None:
        pass

    def load(self) -> None:
        pass


def open_run(
    folder: str | Path,
    kind: str,
    config: Mapping[str, Any],
    resume: bool | Literal["auto"],
    precision: str = "auto",
) -> Run:
    """The `Run` of these arguments; of several processes, rank 0 alone reads and writes its folder."""
    return Run(folder, kind, config, resume, precision) if ranks().main else _Elsewhere(folder)


def begun_precision(folder: str | Path, resume: bool | Literal["auto"], asked: str) -> str:
    """The precision asked for; for ``auto``, what it came to when the run to be resumed began, if it is known."""
    if asked != "auto" or resume is False:
        return asked
    try:
        noted = read_json(expanded(folder) / "provenance.json", "what made a run")["precision"]
    except (InputError, KeyError, TypeError):
        return asked
    return noted if noted in ("float32", "tf32", "bfloat16") else asked


def _set(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the settings that are null: an older version did not know them, and did without."""
    return {
        key: _set(value) if isinstance(value, Mapping) else value for key, value in config.items() if value is not None
    }


def _foreign(path: Path) -> bool:
    """Whether something in a folder without a config is not what a crash leaves there."""
    if path.name == "state" and path.is_dir():
        return any(path.iterdir())
    return path.name not in ("lock", "provenance.json") and not is_remnant(path)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The resolved config of a run folder, its ``kind`` included.

    Raises:
        InputError: if there is none or it is not YAML.
    """
    path = expanded(folder) / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder} is no run folder: it has no config.yaml.")
    content = read_yaml(path, "the config of a run")
    if not isinstance(content, dict) or content.get("kind") not in ("pretrain", "train"):
        raise InputError(f"{path} is not the config of a run: it has no kind 'pretrain' or 'train'.")
    return content
