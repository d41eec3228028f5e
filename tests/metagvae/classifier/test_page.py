"""A classifier outside Python: the ONNX file, and the page in a browser without a network."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from episodes import InputError
from episodes.datasets.cache import cache_folder
from metagvae import Encoder, EncoderConfig, FewShotClassifier
from metagvae.classifier.page import WholeClassifier, write_onnx, write_page
from metagvae.classifier.page.runtime import SHA256, VERSION, runtime_files
from metagvae.classifier.page.write import packed
from tests.support.commands import call

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install -e '.[export]'")

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
RUNTIME = Path(os.environ.get("METAGVAE_RUNTIME") or cache_folder() / f"onnxruntime-web-{VERSION}")
NAMES = ["across", "down", 'slash & "<b>"']


def drawing(kind: int, generator: np.random.Generator, size: int = 64) -> Image.Image:
    """Dark ink on white: a level, an upright or a slanting stroke, somewhere near the middle."""
    pixels = np.full((size, size), 255, dtype=np.uint8)
    place, thick = int(generator.integers(size // 3, size // 2)), size // 10
    if kind == 0:
        pixels[place : place + thick, size // 8 : -size // 8] = 0
    elif kind == 1:
        pixels[size // 8 : -size // 8, place : place + thick] = 0
    else:
        for step in range(size // 8, size - size // 8):
            pixels[step, max(step - thick // 2, 0) : step + thick // 2] = 0
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def classifier() -> FewShotClassifier:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, size=20, latent=6, features=["backbone"]))
    generator = np.random.default_rng(0)
    images = [drawing(kind, generator) for kind in range(3) for _ in range(4)]
    return FewShotClassifier(encoder, device="cpu").fit(images, np.repeat(NAMES, 4))


def asked() -> list[Image.Image]:
    """Images of many sizes, grey, in colour, with alpha, and of no class."""
    generator, found = np.random.default_rng(1), []
    for number in range(24):
        image = drawing(number % 3, generator, int(generator.integers(12, 150)))
        width, height = (int(n) for n in generator.integers(15, 180, 2))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        if number % 4 == 1:
            image = Image.merge("RGB", (image, image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), image))
        elif number % 4 == 2:
            ink = image.point(lambda value: 255 - value)
            image = Image.merge("RGBA", (image, image, image, ink.point(lambda value: 255 if value > 99 else 0)))
        found.append(image)
    found.append(Image.fromarray(generator.integers(0, 256, (40, 40), dtype=np.uint8)))
    return found


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_onnx_file_is_the_classifier(classifier: FewShotClassifier, tmp_path: Path) -> None:
    write_onnx(classifier, tmp_path / "whole.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "whole.onnx"), providers=["CPUExecutionProvider"])
    pictures = classifier.collect(asked())
    images = pictures.on(classifier.scale_).numpy()
    probabilities, novelty = session.run(None, {"images": images})
    np.testing.assert_allclose(probabilities, classifier.predict_proba(pictures), atol=1e-4)
    np.testing.assert_allclose(novelty, classifier.novelty(pictures), rtol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["metagvae"])
    assert about["classes"] == sorted(NAMES)
    assert (about["channels"], about["size"], about["invert"], about["none"]) == (1, 20, True, "none of these")


def test_classes_of_unequal_numbers_and_none_are_as_in_python(classifier: FewShotClassifier) -> None:
    images = [drawing(kind, np.random.default_rng(kind)) for kind in (0, 0, 0, 1)]
    uneven = FewShotClassifier(classifier.encoder, device="cpu")
    uneven.partial_fit(images, ["a", "a", "a", "b"], classes=["a", "b", "never seen"])
    network = WholeClassifier(uneven)
    assert network.classes == ["a", "b"]
    pictures = uneven.collect(asked())
    with torch.no_grad():
        probabilities, novelty = network(pictures.on(uneven.scale_))
    np.testing.assert_allclose(probabilities, uneven.predict_proba(pictures)[:, :2], atol=1e-5)
    np.testing.assert_allclose(novelty, uneven.novelty(pictures), rtol=1e-4)


def test_packed_bytes_come_back_and_end_no_script() -> None:
    data = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8).tobytes()
    length, _, text = packed(data).partition(" ")
    assert "<" not in text
    assert gzip.decompress(base64.b85decode(text.replace(".", "<"))[: int(length)]) == data


def test_what_cannot_leave_is_said_in_a_sentence(
    classifier: FewShotClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="not fitted yet"):
        WholeClassifier(FewShotClassifier())
    images = [drawing(kind, np.random.default_rng(kind)) for kind in (0, 1)]
    ridge = FewShotClassifier(classifier.encoder, "ridge", device="cpu").fit(images, ["a", "b"])
    with pytest.raises(InputError, match="head='prototype'"):
        write_onnx(ridge, tmp_path / "ridge.onnx")
    vectors = FewShotClassifier("vectors").fit(np.eye(4), ["a", "a", "b", "b"])
    with pytest.raises(InputError, match="ready vectors"):
        write_onnx(vectors, tmp_path / "vectors.onnx")
    with pytest.raises(InputError, match="cannot be read"):
        write_page(classifier, tmp_path / "page.html", runtime=tmp_path)
    (tmp_path / "dist").mkdir()
    for name in SHA256:
        (tmp_path / "dist" / name).write_bytes(b"another")
    with pytest.raises(InputError, match="its SHA-256 is"):
        runtime_files(tmp_path)
    assert not (tmp_path / "page.html").exists()
    status, _, err = call(capsys, "export-classifier", str(tmp_path), str(tmp_path / "page.pdf"))
    assert (status, err.count("\n")) == (2, 1)
    assert ".html or .onnx" in err


def test_no_option_of_the_command_is_passed_over(
    classifier: FewShotClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier.save(tmp_path / "saved")
    for ending, option, value, says in (
        ("html", "--encoder", "nothere", "leave out --encoder"),
        ("html", "--none_label", "zzz", "leave out --none_label"),
        ("html", "--invert", "true", "leave out --invert"),
        ("onnx", "--title", "mine", "--title is of a page"),
        ("onnx", "--runtime", str(tmp_path), "--runtime is of a page"),
    ):
        out = tmp_path / f"out.{ending}"
        status, _, err = call(capsys, "export-classifier", str(tmp_path / "saved"), str(out), option, value)
        assert (status, says in err, out.exists()) == (2, True, False), err


@pytest.fixture(scope="module")
def page(classifier: FewShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; apt-get install chromium")
    if not all((RUNTIME / name).is_file() for name in SHA256):
        pytest.skip(f"onnxruntime-web {VERSION} is not in the cache; metagvae export-classifier fetches it")
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(classifier, path, 'Strokes & "<i>"', RUNTIME)
    with playwright.sync_playwright() as started:
        fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *fake])
        opened = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
        opened.seen, opened.faults = [], []
        opened.on("request", lambda request: opened.seen.append(request.url))
        opened.on("console", lambda line: opened.faults.append(line.text))
        opened.on("pageerror", lambda error: opened.faults.append(str(error)))
        opened.goto(path.as_uri())
        opened.evaluate("ready.then(() => true)")
        yield opened
        browser.close()


def test_the_page_answers_as_python_does(page: Any, classifier: FewShotClassifier) -> None:
    files = [encoded(image) for image in asked()]
    expected, novelty = classifier.predict_proba(files), classifier.novelty(files)
    script = "async (text) => classify(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], 'a.png'))"
    for number, data in enumerate(files):
        answer = page.evaluate(script, base64.b64encode(data).decode())
        np.testing.assert_allclose(answer["probabilities"], expected[number], atol=1e-4)
        assert answer["novelty"] == pytest.approx(novelty[number], rel=1e-3)
        known = classifier.classes_[expected[number].argmax()]
        assert answer["label"] == ("none of these" if novelty[number] > 1 else known)
    assert page.inner_text("h1") == 'Strokes & "<i>"'
    assert all(address.startswith(("file:", "blob:", "data:")) for address in page.seen)
    assert page.faults == []


def test_uploads_drawings_and_the_camera(page: Any, classifier: FewShotClassifier, tmp_path: Path) -> None:
    def verdict(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        page.evaluate("say('')")
        page.set_input_files("#file", str(tmp_path / name))
        page.locator("#verdict", has_text=re.compile(r"\S")).wait_for()  # the page's own policy refuses what is eval'd
        return str(page.inner_text("#verdict"))

    across = drawing(0, np.random.default_rng(0))
    assert verdict("across.png", encoded(across)) == "across"
    assert page.locator(".bar").count() == 3
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert verdict("noise.png", encoded(Image.fromarray(noise))) == "none of these"
    assert verdict("words.png", b"no image at all") == (
        "words.png is not an image that this browser can read; choose a PNG or JPEG file."
    )
    assert verdict("large.png", encoded(across) + bytes(10 * 2**20)).startswith("large.png has 10.0 MB; images of at")
    page.click("#tab-draw")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 110)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 110, steps=4)
    page.mouse.up()
    page.wait_for_selector(".bar")
    drawn = page.evaluate("document.getElementById('pad').toDataURL('image/png')").partition(",")[2]
    novelty = float(classifier.novelty([base64.b64decode(drawn)])[0])
    assert page.inner_text("#novelty").startswith(f"Novelty {novelty:.2f} ")
    page.click("#tab-camera")
    page.click("#switch")
    page.wait_for_selector(".bar")
    assert "Novelty" in page.inner_text("#novelty")
    page.click("#switch")
    assert page.inner_text("#switch") == "Start the camera"
    assert page.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for tab in ("upload", "draw", "camera"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
