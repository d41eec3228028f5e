"""Run folders: the resolved config, metrics, TensorBoard events, the last state, what was exported."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

import metagvae
from episodes import ImageBank, InputError


def write_beside(path: Path, data: bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never a part: beside, flushed, renamed.

    Raises:
        InputError: if the folder cannot be written to.
    """
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose a folder you may write to.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"cannot write {path} ({error.strerror}); the older file, if any, is intact.") from error
        raise


def write_json(path: Path, content: Any) -> None:
    write_beside(path, (json.dumps(content, indent=1) + "\n").encode())


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
    }


def family(dataset: str) -> str:
    """The data set's name without its choice of splits: ``omniglot`` of ``omniglot-lake``."""
    return dataset if dataset.startswith("folder-") else dataset.partition("-")[0]


def plain_names(classes: Iterable[str]) -> set[str]:
    """Class names without their quarter turn, or the run of Lake's task that they stand in."""
    return {re.sub(r"^run\d+/|/rot\d{3}$", "", name) for name in classes}


class Run:
    """One run's folder.

    Args:
        folder: its path.
        kind: ``pretrain`` or ``train``.
        config: the resolved config, plain containers.
        resume: go on with what the folder holds; else it must be new or empty.

    Raises:
        InputError: if the folder holds something and ``resume`` is off, holds no run and ``resume`` is on,
            was made by another config, or cannot be written.
    """

    def __init__(self, folder: str | Path, kind: str, config: Mapping[str, Any], resume: bool) -> None:
        self.folder = Path(folder).expanduser()
        self.state_file = self.folder / "state" / "last.pt"
        written = self.folder / "config.yaml"
        if resume:
            if not written.is_file():
                raise InputError(f"{self.folder} holds no run to resume; leave out --run.resume to start one.")
            self._check_same(read_config(self.folder), {"kind": kind, **config})
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(
                f"{self.folder} is not empty; a run needs a folder of its own. Give another --run.folder, or "
                "--run.resume true to go on with the run in it."
            )
        self.provenance = provenance()
        try:
            (self.folder / "state").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the run folder {self.folder} ({error.strerror}); choose a place you may write to."
            ) from error
        if not resume:
            content = yaml.safe_dump({"kind": kind, **config}, sort_keys=False, allow_unicode=True)
            write_beside(written, content.encode())
            write_json(self.folder / "provenance.json", self.provenance)
        self._metrics: Any = None
        self._events: Any = None

    def _check_same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        # where a run lies and how it is watched may change between sittings, what it computes may not
        def essence(config: Mapping[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in config.items() if key != "run"} | {
                "seed": config.get("run", {}).get("seed")
            }

        before, after = essence(old), json.loads(json.dumps(essence(new)))
        differing = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        if differing:
            raise InputError(
                f"{self.folder} was made with another config: {', '.join(differing)} differ. Resume with the run's "
                f"own config ({self.folder / 'config.yaml'}), or start a new folder."
            )

    def check_data(self, bank: ImageBank) -> None:
        """Notes which pictures the run is trained on.

        Raises:
            InputError: if a resumed run began with others: its episodes would not be the same ones.
        """
        path = self.folder / "data.json"
        now = {"dataset": bank.dataset, "split": bank.split, "fingerprint": bank.fingerprint}
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else now
        if before != now:
            raise InputError(
                f"{self.folder} was trained on {before['dataset']} (fingerprint {before['fingerprint']}), and the "
                f"pictures now are {now['dataset']} (fingerprint {now['fingerprint']}). Resume with the same pictures, "
                "or start a new folder."
            )
        write_json(path, now)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """The last state, or None if none was written yet. Tensors and plain containers only.

        Raises:
            InputError: if the file is damaged.
        """
        if not self.state_file.is_file():
            return None
        try:
            return torch.load(self.state_file, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged files
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"the state {self.state_file} cannot be read ({first[:200]}); it is damaged or not a state of this "
                "package. Start again in a new folder."
            ) from error

    def save_state(self, state: Mapping[str, Any]) -> None:
        import io

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_beside(self.state_file, buffer.getvalue())

    def start_metrics(self, step: int) -> None:
        """Opens ``metrics.jsonl`` and TensorBoard; lines past ``step`` (of a sitting that crashed) are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        path = self.folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            write_beside(path, "".join(f"{line}\n" for line in kept).encode())
        self._metrics = path.open("a", buffering=1)
        self._events = SummaryWriter(str(self.folder / "events"), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._metrics.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._events.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a crash


def read_config(folder: str | Path) -> dict[str, Any]:
    """The resolved config of a run folder, its ``kind`` included.

    Raises:
        InputError: if there is none or it is not YAML.
    """
    path = Path(folder).expanduser() / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder} is no run folder: it has no config.yaml.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable YAML ({error}).") from error
    if not isinstance(content, dict) or content.get("kind") not in ("pretrain", "train"):
        raise InputError(f"{path} is not the config of a run: it has no kind 'pretrain' or 'train'.")
    return content


def read_metrics(folder: str | Path) -> Iterable[dict[str, float]]:
    """The lines of ``metrics.jsonl``, in order."""
    path = Path(folder) / "metrics.jsonl"
    if path.is_file():
        for line in path.read_text().splitlines():
            yield json.loads(line)
