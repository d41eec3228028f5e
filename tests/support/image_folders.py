"""Folders of images, a folder per class."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def picture(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    colour = (37 * seed % 256, 91 * seed % 256, 53 * seed % 256)
    Image.new("RGB", (40 + seed % 7, 30 + seed % 5), colour).save(buffer, kind)
    return buffer.getvalue()


def files(classes: int = 12, each: int = 6, prefix: str = "") -> dict[str, bytes]:
    kinds = ("PNG", "JPEG", "BMP")
    return {
        f"{prefix}class {c:02d}/{i}.{kinds[i % 3].lower()}": picture(c * each + i, kinds[i % 3])
        for c in range(classes)
        for i in range(each)
    }


def write(root: Path, found: dict[str, bytes]) -> str:
    for name, data in found.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)
