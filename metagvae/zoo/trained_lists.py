"""Classes and images that shipped encoders were trained on: one file for each training set, named by their cards."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from episodes import InputError
from episodes.untrusted.plain_files import read_json


def trained_lists(name: object, where: str) -> dict[str, Any]:
    """`EncoderCard.trained_classes` and ``trained_images`` of a card that names a file of them.

    Args:
        name: of a JSON file that comes with the package.
        where: the card, for messages.

    Raises:
        InputError: if there is no such file.
    """
    known = {path.stem: path for path in sorted(Path(str(files("metagvae") / "weights" / "trained")).glob("*.json"))}
    if not isinstance(name, str) or name not in known:
        raise InputError(
            f"{where}: card.trained_lists must be one of {', '.join(known)}; received {repr(name)[:100]}. Open the "
            "encoder with the version of metagvae that it comes with."
        )
    content: dict[str, Any] = read_json(known[name], "the classes and images that an encoder was trained on")
    return content
