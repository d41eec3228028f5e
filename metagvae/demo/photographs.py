"""Photographs: things of one's own, known from an example or a few."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from episodes import InputError
from episodes.untrusted.sources import flattened, is_deep, open_picture, to_8_bits
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.demo.drawing import Characters
from metagvae.demo.ink import LARGEST, read_upload


@dataclass
class Photographs(Characters):
    """The photographs that a visitor took or uploaded, by the thing's name.

    Args:
        asked: the one asked about last, whose file is gone.
    """

    asked: Image.Image | None = None

    def prepared(self, picture: Image.Image) -> Image.Image:
        return picture

    def classifier(self) -> FewShotClassifier:
        return FewShotClassifier(self.encoder)


def take_photograph(path: str | None) -> Image.Image:
    """A photograph in colour, no side longer than `LARGEST`, after which its file is gone.

    Raises:
        InputError: if there is none, it is too large, or it is no picture.
    """
    if path is None:
        raise InputError("there is no photograph yet; take one with the camera or upload one.")
    file = Path(path)
    try:
        picture = open_picture(read_upload(file), file.name)
    finally:
        file.unlink(missing_ok=True)
    plain = (to_8_bits(picture) if is_deep(picture) else flattened(picture, LARGEST)).convert("RGB")
    plain.thumbnail((LARGEST, LARGEST))
    return plain
