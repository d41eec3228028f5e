"""Lake's task with zero background: a training of that config opens no file of Omniglot, nor one made from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.omniglot_files import members, write

ROOT = Path(__file__).resolve().parents[3]

# Every file that the process opens, as Python's own auditing tells; few and small classes, so that it is over soon.
TRACED = """
import os, sys
opened = set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.add(os.path.realpath(os.fsdecode(arguments[0])))
sys.addaudithook(hook)
if sys.argv[1] == "omniglot":
    from episodes.datasets import make_dataset
    make_dataset("omniglot", splits="lake").load("train")
    print("\\n".join(sorted(opened)))
    sys.exit(0)
import episodes.datasets.glyphs as glyphs
import episodes.datasets.scribbles as scribbles
glyphs.LETTERS = {"hebrew": ("train", "5D0-5D1"), "nko": ("validation", "7CC"), "lao": ("test", "E81")}
scribbles.SCRIPTS = {"train": 2, "validation": 1, "test": 1}
scribbles.CHARACTERS = 6
from metagvae.cli import main
status = main(sys.argv[1:])
print("\\n".join(sorted(opened)))
sys.exit(status)
"""


def opened_by(tmp_path: Path, *arguments: str) -> set[Path]:
    """Files that a command opens, with an empty cache and Omniglot's files where they are looked for."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    write(data / "omniglot", members(), zipped=True)
    done = subprocess.run(
        [sys.executable, "-c", TRACED, *arguments],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "METAGVAE_DATA": str(data),
            "METAGVAE_CACHE": str(cache),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {Path(line) for line in done.stdout.splitlines() if line.startswith("/")}


def of_data(files: set[Path], tmp_path: Path) -> set[Path]:
    """Those that hold images or weights, or lie among the data; what the run and the cache wrote themselves is left."""
    holding = {".zip", ".png", ".npz", ".npy", ".pt", ".safetensors", ".bin", ".tar", ".gz"}
    own = (tmp_path / "run", tmp_path / "cache", Path(sys.prefix), Path(sys.base_prefix))
    found = {file for file in files if file.suffix in holding or (tmp_path / "data") in file.parents}
    found |= {file for file in files if (ROOT / "metagvae" / "weights") in file.parents}
    return {file for file in found if not any(folder in file.parents for folder in own)}


def test_no_byte_of_omniglot_is_read(tmp_path: Path) -> None:
    config = ["train", "--config", "configs/omniglot/lake-zero.yaml", "--run.folder", str(tmp_path / "run")]
    small = ["--episodes.way", "5", "--encoder.width", "4", "--optim.steps", "2", "--run.device", "cpu"]
    files = opened_by(tmp_path, *config, *small)
    assert (ROOT / "configs" / "omniglot" / "lake-zero.yaml") in files  # the trace sees what is opened
    assert any(file.suffix == ".ttf" for file in files)
    assert (tmp_path / "run" / "learner.safetensors").exists()
    assert of_data(files, tmp_path) == set()


def test_the_trace_would_show_it(tmp_path: Path) -> None:
    read = of_data(opened_by(tmp_path, "omniglot"), tmp_path)
    assert read
    assert {file.parent for file in read} == {tmp_path / "data" / "omniglot"}
