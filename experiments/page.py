"""The page of a classifier against Python on 200 images, in headless Chromium without a network.

Five classes of five examples: MNIST with `handwriting`, miniImageNet's test classes with `photos`, as PNG files.

python experiments/page.py --json experiments/results/page.json
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import tempfile
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


def files(data: str, count: int) -> tuple[list[bytes], list[str], list[bytes]]:
    """Examples and their labels, and ``count`` further images, a sixth of them of a class that is not among them."""
    bank = make_dataset(data).load("test")
    each = count // (WAY + 1) + 1
    examples, labels, others = [], [], []
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
            elif label < WAY:
                examples.append(buffer.getvalue())
                labels.append(bank.class_names[label])
    return examples, labels, others[:count]


def measure(name: str, data: str, encoder: str, count: int, folder: Path) -> dict[str, Any]:
    """A row: the page's size, its largest differences from Python, and its time per image."""
    examples, labels, others = files(data, count)
    classifier = FewShotClassifier(encoder, device="cpu").fit(examples, labels)
    probabilities, novelty = classifier.predict_proba(others), classifier.novelty(others)
    path = folder / f"{data}.html"
    write_page(classifier, path)
    answers, asked = [], []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("ready.then(() => true)")
        for other in others:
            answers.append(page.evaluate(SCRIPT, base64.b64encode(other).decode()))
        browser.close()
    wrong = [
        answer["label"] != ("none of these" if far > 1 else str(classifier.classes_[row.argmax()]))
        for answer, row, far in zip(answers, probabilities, novelty, strict=True)
    ]
    gap = np.abs(np.array([answer["probabilities"] for answer in answers]) - probabilities).max()
    far = np.abs(np.array([answer["novelty"] for answer in answers]) / novelty - 1).max()
    times = [answer["milliseconds"] for answer in answers]
    return {
        "page": name,
        "encoder": encoder,
        "MB": f"{path.stat().st_size / 10**6:.1f}",
        "images": len(others),
        "largest difference of a probability": f"{gap:.1e}",
        "of the novelty": f"{far:.1e}",
        "answers that differ": sum(wrong),
        "ms an image, median": f"{np.median(times):.0f}",
        "requests": sum(not url.startswith(("file:", "blob:", "data:")) for url in asked),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data, encoder in (
            ("drawings", "mnist", "handwriting"),
            ("photographs", "miniimagenet", "photos"),
        ):
            rows.append(measure(name, data, encoder, arguments.count, Path(folder)))
            print("  ".join(map(str, rows[-1].values())), flush=True)
    if arguments.json:
        about = "Five classes of five examples; a sixth of the images are of another class. Headless Chromium, offline."
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
