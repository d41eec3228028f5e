"""Files in Omniglot's layout."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from episodes.datasets.omniglot import PARTS


def drawing(seed: int) -> bytes:
    """A 1-bit PNG, 105 x 105, black strokes on white, as upstream's."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(10, 95, (5, 2), generator=generator).tolist()
    picture = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(picture).line([tuple(point) for point in points], fill=0, width=3)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def members() -> dict[str, dict[str, bytes]]:
    """Seven background and two evaluation alphabets of two characters of three drawings."""
    found: dict[str, dict[str, bytes]] = {part: {} for part in PARTS}
    for part, alphabets in zip(PARTS, ("ABCDEFG", "YZ"), strict=True):
        for alphabet in alphabets:
            for number in range(6):
                name = f"{part}/{alphabet}/character{number // 3 + 1:02d}/{number % 3:02d}.png"
                found[part][name] = drawing(100 * ord(alphabet) + number)
    return found


def write(root: Path, found: dict[str, dict[str, bytes]], zipped: bool) -> Path:
    root.mkdir(parents=True)
    for part, files in found.items():
        if zipped:
            with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        else:
            for name, data in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
    return root
