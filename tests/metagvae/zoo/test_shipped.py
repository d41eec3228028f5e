"""Shipped encoders stay what they were: files of the format each was first written in, and the features they gave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

import metagvae
from episodes import InputError
from metagvae import zoo
from metagvae.encoders.encoder import Encoder
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import save_encoder, shipped_encoders

# of the commit before the package was cut into parts (bbb7a35), but for handwriting, which came after it: the file's
# format, the weights' SHA-256, and the first four features of the first of 64 uniform images of seed 0
SHIPPED = {
    "guided-protonet-omniglot": (
        "metagvae-encoder/1",
        "45a853463fa86827c2c14b52245e11c363b552a7434a92d4ae05589934e92ab1",
        [0.0, 2.02512, 1.35891, 0.0],
    ),
    "guided-vae-omniglot": (
        "metagvae-encoder/1",
        "dcb2275cb0110eb3084f1d3a0f527f42bf40f1900bcaa1972e8768782bb1a17a",
        [0.97947, 5.00676, 3.72855, -0.91931],
    ),
    "warp-neighbours-omniglot": (
        "metagvae-encoder/1",
        "08d175904fdc811a8941da990092267ce2d975b6e13a966aa6e866841aed0161",
        [1.01384, 0.0, 2.05849, 0.0],
    ),
    "warp-protonet-omniglot": (
        "metagvae-encoder/1",
        "1c3d8addedb33d17c7575896c8de0338c4d14c40648a009ee97a51b1f7058a2e",
        [2.33622, 0.0, 2.52859, 0.0],
    ),
    "handwriting": (
        "metagvae-encoder/2",
        "c4627a9d578ca5627284e7e6e6750fd7f1ba7fcee9229da37edc10cd4cd4e479",
        [1.59877, 1.64814, 1.87255, 1.61936],
    ),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_read_in_its_first_format_and_gives_the_features_it_gave(name: str) -> None:
    form, weights, features = SHIPPED[name]
    folder = shipped_encoders()[name]
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert content["format"] == form
    assert ("kind" in content) == (form == "metagvae-encoder/2")
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == weights
    encoder = metagvae.load_encoder(name)
    assert type(encoder) is Encoder
    with torch.no_grad():
        found = encoder(torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)))[0, :4]
    assert torch.allclose(found, torch.tensor(features), atol=1e-3)  # rounding differs between processors


# SHA-256 of the classes and of the marks of images, one a line, as each card listed them before they shared a file
LISTS = {
    "omniglot-train": (
        "c350ea5778649d32e0ac6ec889c2307081c3925cf690fc8933ebdf3d800b69b2",
        "c85fabd886712eaca2165427695afbc6c8076e462b4fa85e56020228ea00bbe4",
    ),
    "omniglot-and-glyphs": (
        "425f5217aadc7aac7f9d918699998e5b5a81bdc00349bccb406f6d3cc4a13681",
        "c6e73b545150e2faef47fd385fcf0febdf339fcfd9cf49fa3d4cb96187afd498",
    ),
}


def digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


@pytest.mark.parametrize("name", [name for name in shipped_encoders() if name != "photos"])
def test_cards_name_what_their_encoders_were_trained_on(name: str, tmp_path: Path) -> None:
    content = json.loads((shipped_encoders()[name] / "config.json").read_text(encoding="utf-8"))
    card, stored = zoo.read_card(name), content["card"]
    classes = [each for names in card.trained_classes.values() for each in names]
    assert (digest(classes), digest(card.trained_images)) == LISTS[stored.pop("trained_lists")]

    def read(**more: object) -> EncoderCard:
        (tmp_path / "config.json").write_text(json.dumps({**content, "card": {**stored, **more}}), encoding="utf-8")
        return zoo.read_card(tmp_path)

    # a card of before has the lists themselves
    assert read(trained_classes=card.trained_classes, trained_images=card.trained_images) == card
    for unknown in ("../trained/omniglot-train", "of-another-version", 3):
        with pytest.raises(InputError, match="must be one of omniglot-and-glyphs, omniglot-train"):
            read(trained_lists=unknown)


def test_what_is_written_of_a_shipped_encoder_lists_it_all(tmp_path: Path) -> None:
    trained = zoo.open("guided-vae-omniglot")
    save_encoder(trained.encoder(), tmp_path, trained.card)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert content["card"]["trained_images"] == trained.card.trained_images
    assert content["card"]["trained_classes"] == trained.card.trained_classes
