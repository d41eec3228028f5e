"""Pictures with much beside their pixels are refused before they are taken apart; ordinary metadata does no harm."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin, features

from episodes import InputError
from episodes.untrusted.sources import open_picture
from tests.hostile.metadata import metadata_bombs

BOMBS = metadata_bombs()
SMALL = ("jpeg, exif in many pieces", "jpeg, exif of rationals")  # at the bounds, and read
OPENED = ("webp", "png, exif in text", "pnm, odd")  # the reader in C keeps these whole; they are not taken apart yet


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in SMALL])
def test_bombs_are_refused_before_they_are_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    true = Image.open

    def watched(*arguments: Any, **options: Any) -> Image.Image:
        opened.append(name)
        return true(*arguments, **options)

    def never(picture: Image.Image) -> None:
        raise AssertionError("taken apart")

    monkeypatch.setattr(Image, "open", watched)
    monkeypatch.setattr(Image.Image, "getexif", never)
    with pytest.raises(InputError, match=r"beside its pixels; save it again|one of an odd scale") as caught:
        open_picture(BOMBS[name](), "a/b.png")
    assert str(caught.value).startswith("a/b.png ")
    assert bool(opened) == name.startswith(OPENED)


@pytest.mark.parametrize("name", SMALL)
def test_at_the_bounds_pictures_are_read(name: str) -> None:
    assert open_picture(BOMBS[name](), "x").size == (16, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", *(["AVIF"] if features.check("avif") else [])])
def test_what_a_camera_writes_is_read(kind: str) -> None:
    picture = Image.new("RGB", (40, 20), (10, 200, 30))
    exif = picture.getexif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "maker" * 20
    exif[ExifTags.Base.XResolution] = 300.0
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(40_000)
    exif.get_ifd(ExifTags.IFD.GPSInfo)[2] = (50.0, 3.0, 7.5)
    buffer = io.BytesIO()
    picture.save(buffer, kind, exif=exif, icc_profile=bytes(range(256)) * 2000, dpi=(300, 300))
    assert open_picture(buffer.getvalue(), "x").size == (20, 40)


def test_what_programs_write_is_read() -> None:
    picture = Image.effect_noise((300, 200), 80)
    words = PngImagePlugin.PngInfo()
    for number in range(60):
        words.add_text(f"key {number}", "some words " * 100, zip=bool(number % 2))
    files: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": words}, "GIF": {"comment": b"words " * 2000}, "TIFF": {"compression": "tiff_deflate"},
        "PPM": {}, "BMP": {}, "JPEG": {"comment": b"words", "progressive": True},
    }  # fmt: skip
    for kind, options in files.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        assert open_picture(buffer.getvalue(), kind).size == (300, 200)
    strips = io.BytesIO()
    picture.save(strips, "TIFF", tiffinfo={278: 1})
    assert open_picture(strips.getvalue(), "a strip a row").size == (300, 200)
    assert open_picture(b"P5\n# made by a program\n4 2\n255\n" + bytes(8), "pnm").size == (4, 2)
