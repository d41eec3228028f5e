"""The page on one's own images, run as it is printed: steps 1 to 4 on photographs, five classes of ten images.

The twenty test classes of miniImageNet make four folders of five classes, with ten further images of each to predict.
Then an image is moved into the wrong class, and another is there twice, resized, for step 2 to find.

python experiments/walk_through.py --json experiments/results/walk-through.json
"""

from __future__ import annotations

import argparse
import csv
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from episodes import ImageBank
from episodes.datasets import make_dataset
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

ROOT = Path(__file__).resolve().parent.parent
WAY, EACH = 5, 10


def commands() -> list[str]:
    """Those of steps 1 to 4, as printed."""
    text = (ROOT / "docs" / "own-pictures.md").read_text(encoding="utf-8")
    steps = text[text.index("## 1.") : text.index("## 5.")]
    return re.findall(r"^metagvae .*$", steps, re.MULTILINE)


def write_images(bank: ImageBank, classes: list[int], place: Path, first: int) -> None:
    """A folder a class, with ten of its images from number ``first`` on."""
    for label in classes:
        folder = place / bank.class_names[label]
        folder.mkdir(parents=True)
        for number in range(first, first + EACH):
            pixels = bank.images[int(bank.offsets[label]) + number].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{number}.png")


def run(command: str, folder: Path) -> str:
    """The output of a command, run in a folder."""
    words = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


def spent() -> float:
    """Seconds of the processor that finished commands used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def walked(bank: ImageBank, classes: list[int], folder: Path) -> dict[str, Any]:
    """A row: the steps on a folder of these classes."""
    write_images(bank, classes, folder / "PICTURES", 0)
    write_images(bank, classes, folder / "NEW", EACH)
    start, used = time.perf_counter(), spent()
    for command in commands():
        print(run(command, folder), flush=True)
    seconds, used = time.perf_counter() - start, spent() - used
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answers = [(row["file"].partition("/")[0], row["prediction"]) for row in rows]
    wrong = [truth != said != "none" for truth, said in answers]
    moved, twice = bank.class_names[classes[0]], bank.class_names[classes[1]]
    (folder / "PICTURES" / moved / "0.png").rename(folder / "PICTURES" / twice / "moved.png")
    with Image.open(folder / "PICTURES" / twice / "3.png") as image:
        image.resize((60, 60), Image.Resampling.BICUBIC).save(folder / "PICTURES" / twice / "again.jpg")
    told = run(next(command for command in commands() if "fit-check" in command), folder)
    suspects = [line for line in told.splitlines() if "is its label right?" in line]
    return {
        "folder of": f"{bank.class_names[classes[0]]} and four others",
        "lines of the table": len(rows),
        "wrong": sum(wrong),
        "none of the classes": sum(said == "none" for _, said in answers),
        "processor seconds of all steps": f"{used:.0f}",
        "wall seconds": f"{seconds:.0f}",
        "the image in the wrong folder is named": "yes" if any("moved.png" in line for line in suspects) else "no",
        "other images suspected": len(suspects) - any("moved.png" in line for line in suspects),
        "the copy is named": "yes" if any("same image" in x and "again.jpg" in x for x in told.splitlines()) else "no",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    bank = make_dataset("miniimagenet").load("test")
    order = np.random.default_rng(0).permutation(bank.num_classes)
    rows = []
    for part in order.reshape(-1, WAY).tolist():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(walked(bank, part, Path(folder)))
        print("  ".join(map(str, rows[-1].values())), flush=True)
    if arguments.json:
        about = (
            f"Five test classes of miniImageNet a folder, all seen in the encoder's training; {EACH} images a class "
            f"to learn from, {EACH} others a class to predict."
        )
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
