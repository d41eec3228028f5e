"""Names of files that are bytes and no UTF-8: what is written can be read back, or is refused at once."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from episodes import InputError
from episodes.datasets.folder import Folder
from episodes.untrusted.plain_files import parse_json
from metagvae import zoo
from metagvae.classifier.page import write as page
from metagvae.cli.export_encoder import export_encoder
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.runs.run import Run
from metagvae.storage.atomic_files import json_text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder called caf\\xe9, in Latin-1."""
    found = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    try:
        found.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    return found


@pytest.mark.parametrize("setting", ["data", "run"])
def test_a_run_that_could_not_be_read_again_does_not_begin(place: Path, setting: str) -> None:
    folder = place / "run" if setting == "run" else place.parent / "run"
    config = {"data": {"name": "folder", "root": str(place / "images") if setting == "data" else None}}
    with pytest.raises(InputError, match=r"udce9.* is not UTF-8"):
        Run(folder, "train", {**config, "run": {"folder": str(folder)}}, False)
    assert not folder.exists()


def test_json_holds_such_a_name_as_text() -> None:
    text = json_text({"a\udce9": ["b\udcff", {"c": "\U0001f600\\u"}]})
    assert parse_json(text) == {"a\\udce9": ["b\\udcff", {"c": "\U0001f600\\u"}]}


def test_an_encoder_in_such_a_folder_opens_again(place: Path) -> None:
    encoder = Encoder(EncoderConfig(backbone="conv4", width=4, latent=4, units={"content": list(range(4))}))
    zoo.save_encoder(encoder, place / "first")
    export_encoder(str(place / "first"), str(place / "caf\udce9"))
    assert "caf\\udce9" in (place / "caf\udce9" / "README.md").read_text("utf-8")
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(zoo.load_encoder(place / "caf\udce9")(images), encoder.eval()(images))


def test_images_in_such_a_folder_are_called_by_text(place: Path) -> None:
    for name in "ab":
        (place / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / name / "image.png")
    bank = Folder(root=str(place), size=8, fractions=(1, 0, 0)).load("train")
    assert bank.dataset == "folder-caf\\udce9"


def test_a_page_of_such_a_folder_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "onnx_bytes", lambda _: (b"", {}))
    parts = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    monkeypatch.setattr(page, "runtime_files", lambda _: dict.fromkeys(parts, b""))
    page.write_page(SimpleNamespace(), place / "page.html", "caf\udce9")  # type: ignore[arg-type]
    assert "caf\\udce9" in (place / "page.html").read_text("utf-8")
