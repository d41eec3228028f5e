"""The page of a classifier against Python on 200 images, in headless Chromium without a network.

Five classes of five examples: MNIST with `handwriting`, miniImageNet's test classes with `photos`, as PNG files. Then
what a person does with it: a stranger, a file too large, one that is no image, the camera (Chromium's fake one).

python experiments/page.py --json experiments/results/page.json
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

from episodes.datasets import make_dataset
from metagvae import FewShotClassifier
from metagvae.classifier.page import write_page
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

WAY, SHOT = 5, 5
SCRIPT = "async (text) => classify(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], 'image.png'))"


def files(data: str, count: int) -> tuple[list[bytes], list[str], list[bytes], np.ndarray]:
    """Examples, their labels, ``count`` further images, and which of these are strangers: a sixth, of another class."""
    bank = make_dataset(data).load("test")
    each = count // (WAY + 1) + 1
    examples, labels, others, strange = [], [], [], []
    for label in range(WAY + 1):
        start = int(bank.offsets[label])
        for number in range(SHOT + each):
            pixels = bank.images[start + number].permute(1, 2, 0).squeeze(-1).numpy()
            buffer = io.BytesIO()
            # drawings as dark ink on white paper, at a size that is not the encoder's
            picture = Image.fromarray(pixels if pixels.ndim == 3 else 255 - pixels)
            picture.resize((150, 130), Image.Resampling.BILINEAR).save(buffer, "PNG")
            if number >= SHOT:
                others.append(buffer.getvalue())
                strange.append(label == WAY)
            elif label < WAY:
                examples.append(buffer.getvalue())
                labels.append(bank.class_names[label])
    return examples, labels, others[:count], np.array(strange[:count])


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, list[str], list[str]]]:
    """The page in a browser without a network, the addresses it asks for, and what it says on the console."""
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", *fake])
        page = browser.new_context(offline=True).new_page()
        asked: list[str] = []
        faults: list[str] = []
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: faults.append(line.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path.as_uri())
        page.evaluate("ready.then(() => true)")
        yield page, asked, faults
        browser.close()


def tried(page: Any, stranger: bytes, folder: Path) -> dict[str, str]:
    """Sentences of the page to a person, by what the person did."""

    def said(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        page.evaluate("say('')")
        page.set_input_files("#file", str(folder / name))
        page.locator("#verdict", has_text=re.compile(r"\S")).wait_for()
        return str(page.inner_text("#verdict"))

    found = {
        "an image of another class, the most novel one": said("stranger.png", stranger),
        "an image file of 10 MB": said("large.png", stranger + bytes(10 * 2**20 - len(stranger))),
        "a text file named .png": said("words.png", b"A text, and no image."),
    }
    page.click("#tab-camera")
    page.click("#switch")
    page.wait_for_selector(".bar")
    found["the camera (Chromium's fake device)"] = (
        f"{page.inner_text('#verdict')}. {page.inner_text('#novelty').partition(' (')[0]}"
    )
    page.click("#switch")
    return found


def measure(name: str, data: str, encoder: str, count: int, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A row: the page's size, its largest differences from Python, its time per image; and what it says (`tried`)."""
    examples, labels, others, strange = files(data, count)
    classifier = FewShotClassifier(encoder, device="cpu").fit(examples, labels)
    probabilities, novelty = classifier.predict_proba(others), classifier.novelty(others)
    path = folder / f"{data}.html"
    write_page(classifier, path)
    with opened(path) as (page, asked, faults):
        answers = [page.evaluate(SCRIPT, base64.b64encode(other).decode()) for other in others]
        said = tried(page, others[int((novelty * strange).argmax())], folder)
    wrong = [
        answer["label"] != ("none of these" if far > 1 else str(classifier.classes_[row.argmax()]))
        for answer, row, far in zip(answers, probabilities, novelty, strict=True)
    ]
    gap = np.abs(np.array([answer["probabilities"] for answer in answers]) - probabilities).max()
    far = np.abs(np.array([answer["novelty"] for answer in answers]) / novelty - 1).max()
    row = {
        "page": name,
        "encoder": encoder,
        "MB": f"{path.stat().st_size / 10**6:.1f}",
        "images": len(others),
        "largest difference of a probability": f"{gap:.1e}",
        "of the novelty": f"{far:.1e}",
        "answers that differ": sum(wrong),
        "strangers refused, %": f"{100 * (novelty > 1)[strange].mean():.0f}",
        "others refused, %": f"{100 * (novelty > 1)[~strange].mean():.0f}",
        "ms an image, median": f"{np.median([answer['milliseconds'] for answer in answers]):.0f}",
        "requests": sum(not url.startswith(("file:", "blob:", "data:")) for url in asked),
        "lines on the console": len(faults),
    }
    return row, said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, said = [], dict[str, dict[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        for name, data, encoder in (
            ("drawings", "mnist", "handwriting"),
            ("photographs", "miniimagenet", "photos"),
        ):
            row, answers = measure(name, data, encoder, arguments.count, Path(folder))
            rows.append(row)
            print("  ".join(map(str, row.values())), flush=True)
            for what, answer in answers.items():
                said.setdefault(what, {"what it gets": what})[f"what the page of {name} says"] = answer
    if arguments.json:
        about = "Five classes of five examples; a sixth of the images are of another class. Headless Chromium, offline."
        groups = {"pages": rows, "said": list(said.values())}
        write_json(arguments.json, {"provenance": provenance(), "about": about, "groups": groups})


if __name__ == "__main__":
    main()
