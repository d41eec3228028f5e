"""Folders, zips and pictures that are damaged or made to do harm."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from episodes import InputError
from episodes.untrusted import folder_walk, zip_files
from episodes.untrusted.archives import Source
from episodes.untrusted.picture_files import is_picture
from episodes.untrusted.sources import open_picture, to_tensor
from metagvae.classifier.inputs import collect

# bits, the number of black is 0, kind of number, what is wrong
TURNED = [
    (8, 0, 1, None),
    (8, 1, 1, None),
    (16, 0, 1, "0 is white"),
    (16, 1, 1, None),
    (32, 0, 3, "0 is white"),
    (32, 1, 3, None),
    (32, 1, 1, "2\\*\\*31 or more"),
]


def png(size: tuple[int, int] = (12, 10), mode: str = "RGB", kind: str = "PNG", **save: object) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(buffer, kind, **save)
    return buffer.getvalue()


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def forged_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_folder_and_zip_read_alike(tmp_path: Path) -> None:
    members = {"a/1.png": png(), "b/c/2.png": png((5, 5)), "note.txt": b"hello"}
    for name, data in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    (tmp_path / "folder" / ".hidden").write_bytes(b"x")
    zipped = Source(make_zip(tmp_path / "all.zip", members))
    folder = Source(tmp_path / "folder")
    assert zipped.names == folder.names == sorted(members)
    assert all(zipped.read(name) == folder.read(name) == data for name, data in members.items())
    zipped.close()


def test_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    first = Source(make_zip(tmp_path / "1.zip", {"a.txt": b"one"})).fingerprint
    assert Source(make_zip(tmp_path / "3.zip", {"a.txt": b"two"})).fingerprint != first
    assert Source(make_zip(tmp_path / "4.zip", {"b.txt": b"one"})).fingerprint != first
    (tmp_path / "copy.zip").write_bytes((tmp_path / "1.zip").read_bytes())
    assert Source(tmp_path / "copy.zip").fingerprint == first
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"one")
    before = Source(folder).fingerprint
    os.utime(folder / "a.txt", ns=(1, 1))
    assert Source(folder).fingerprint != before


def test_opening_a_zip_does_not_parse_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.txt": b"one"})
    monkeypatch.setattr(zip_files.zipfile, "ZipFile", None)
    assert len(Source(path).fingerprint) == 64


@pytest.mark.parametrize(
    "name", ["../out.png", "a/../../out.png", "/etc/out.png", "..\\out.png", "C:\\out.png", "C:/out.png"]
)
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    source = Source(make_zip(tmp_path / "a.zip", {"ok.png": png(), name: png()}))
    with pytest.raises(InputError, match="points outside"):
        _ = source.names
    with pytest.raises(InputError, match="points outside"):
        source.read("ok.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_reading_a_name_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("x")
    for source in (Source(tmp_path / "folder"), Source(make_zip(tmp_path / "a.zip", {"a": b"1"}))):
        for name in ("b", "../secret", str(tmp_path / "secret")):
            with pytest.raises(InputError, match="is missing"):
                source.read(name)


def test_nameless_members_are_passed_over(tmp_path: Path) -> None:
    assert Source(make_zip(tmp_path / "a.zip", {"./": b"", ".": b"", "a.txt": b"1"})).names == ["a.txt"]


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, -1])
def test_truncated_zip(tmp_path: Path, keep: float) -> None:
    data = make_zip(tmp_path / "a.zip", {f"{i}.png": png() for i in range(5)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(InputError, match=r"cut\.zip is not a readable zip file .* fetch it again"):
        _ = Source(tmp_path / "cut.zip").names


def test_damaged_member(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "a.zip", {"a.bin": bytes(1000)}).read_bytes())
    data[500] ^= 255
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.bin in .* cannot be read \(Bad CRC-32"):
        Source(tmp_path / "a.zip").read("a.bin")


def test_forged_directory(tmp_path: Path) -> None:
    """The list of members replaced by noise, and its length by one that does not fit."""
    data = bytearray(make_zip(tmp_path / "a.zip", {"a.bin": b"123"}).read_bytes())
    end = data.rfind(b"PK\5\6")
    forged = data.copy()
    forged[end + 12 : end + 16] = struct.pack("<L", 10**6)
    (tmp_path / "long.zip").write_bytes(forged)
    with pytest.raises(InputError, match="does not fit"):
        Source(tmp_path / "long.zip")
    start = struct.unpack_from("<L", data, end + 16)[0]
    data[start : start + 4] = b"XXXX"
    (tmp_path / "noise.zip").write_bytes(data)
    with pytest.raises(InputError, match="not a readable zip"):
        _ = Source(tmp_path / "noise.zip").names


def test_bomb(tmp_path: Path) -> None:
    """80 MiB of zeros in 80 KiB; told as they are, and told as 100 bytes."""
    path = make_zip(tmp_path / "a.zip", {"a.png": bytes(80 * 2**20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="more than 67,108,864 bytes"):
        Source(path).read("a.png")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.rfind(signature) + offset
        data[at : at + 4] = struct.pack("<L", 100)
    path.write_bytes(data)
    source = Source(path)
    tracemalloc.start()
    with pytest.raises(InputError, match="cannot be read"):
        source.read("a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_limit(tmp_path: Path, method: int) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.png": bytes(10**6)}, compression=method)
    with pytest.raises(InputError, match="Zip it again"):
        Source(path).read("a.png")


def test_encrypted_member(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "a.zip", {"a.bin": b"123"}).read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.find(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        Source(tmp_path / "a.zip").read("a.bin")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_files, "MAX_MEMBERS", 3)
    monkeypatch.setattr(folder_walk, "MAX_FILES", 3)
    path = make_zip(tmp_path / "a.zip", {f"{i}": b"" for i in range(4)})
    with pytest.raises(InputError, match="lists 4 members; at most 3"):
        Source(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(4):
        (folder / str(i)).touch()
    with pytest.raises(InputError, match="more than 3 files"):
        Source(folder)


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = make_zip(tmp_path / "a.zip", {"a.txt": b"one", "b.txt": b"two"})
    data = bytearray(path.read_bytes())
    assert b"PK\6\6" in data
    at = data.rfind(b"PK\5\6") + 12
    data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert Source(path).read("b.txt") == b"two"


def test_missing_and_odd_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Source(tmp_path / "nothing")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "links" / "loop").symlink_to(tmp_path / "links")
    os.mkfifo(tmp_path / "links" / "pipe.png")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").write_bytes(png())
    (tmp_path / "links" / "cat").symlink_to(tmp_path / "real")
    assert Source(tmp_path / "links").names == ["cat/1.png"]


def test_is_picture() -> None:
    assert is_picture("a/b.PNG")
    assert is_picture("a/b.jpeg")
    assert not any(map(is_picture, ("a/b.txt", "__MACOSX/a/b.png", "a/._b.png", ".git/b.png", "png")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png((200, 200))[:2000], "not a readable picture"),
        (b"", "not a readable picture"),
        (b"just text", "not a readable picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "not a readable"),
        (forged_png(50_000, 10), "50000 x 10 pixels; at most"),
        (forged_png(9_000, 9_000), "9000 x 9000 pixels; at most"),
        (forged_png(50_000, 50_000), "at most 20,000"),
        (forged_png(1_000, 1_000), "not a readable picture"),
        (png(mode="LAB", kind="TIFF"), "colour mode LAB"),
    ],
    ids=["cut", "empty", "text", "eps", "wide", "large", "bomb", "lying", "lab"],
)
def test_pictures_that_are_none(data: bytes, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as caught:
        open_picture(data, "a/b.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).startswith("a/b.png")
    assert peak < 20 * 2**20


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGB", "JPEG"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("F", "TIFF"), ("I", "TIFF"), ("RGB", "WEBP"),
        ("RGB", "BMP"), ("L", "PPM"),
    ],
)  # fmt: skip
def test_every_colour_mode_becomes_a_tensor(mode: str, kind: str, channels: int) -> None:
    data = png((30, 20), mode, kind)
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:
        pytest.skip(f"this Pillow does not read the {mode} {kind} that it writes")  # 12.3 with YCbCr
    picture = open_picture(data, "x")
    for size in (20, 16):
        tensor = to_tensor(picture, size, channels)
        assert tensor.shape == (channels, size, size)
        assert tensor.float().std() > 10


@pytest.mark.parametrize("kind", ["GIF", "MPO", "TIFF", "WEBP"])
def test_several_frames_give_the_first(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (level, level, level)) for level in (40, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    levels = to_tensor(open_picture(buffer.getvalue(), "x"), 8, 1)
    assert (levels.int() - 40).abs().max() <= 2


def test_sixteen_bits_keep_their_scale() -> None:
    """A dark picture stays dark, whatever its own extremes."""
    buffer = io.BytesIO()
    values = np.full((8, 8), 257 * 20, dtype=np.uint16)
    values[0] = 257 * 10
    Image.fromarray(values).save(buffer, "PNG")
    tensor = to_tensor(open_picture(buffer.getvalue(), "x"), 8, 1)
    assert tensor.unique().tolist() == [10, 20]


def test_twelve_bits_in_files_of_sixteen_are_not_black() -> None:
    """A camera's 12 bits keep all of 8; a picture with larger numbers is of 16."""
    ramp = np.linspace(0, 4095, 64, dtype=np.uint16).reshape(8, 8)
    for values, brightest in ((ramp, 255), (ramp * 16, 255), (ramp * 8, 127), (ramp // 4095, 255), (ramp // 17, 240)):
        for mode in ("I;16", "I", "F"):
            buffer = io.BytesIO()
            picture = Image.fromarray(values if mode == "I;16" else values.astype(np.int32 if mode == "I" else "f4"))
            assert picture.mode == mode
            picture.save(buffer, "TIFF")
            levels = to_tensor(open_picture(buffer.getvalue(), "x"), 8, 1)
            assert abs(int(levels.max()) - brightest) <= 1
            assert len(levels.unique()) >= min(len(np.unique(values)), 32)


@pytest.mark.parametrize(("bits", "white", "sample", "message"), TURNED)
def test_numbers_that_pillow_gives_turned_round(bits: int, white: int, sample: int, message: str | None) -> None:
    """TIFFs whose 0 is white are not read as negatives, nor numbers of 2**31 as below 0."""
    ramp = np.arange(64).reshape(8, 8) * 2 ** (bits - 6)
    turned = ramp if white else ramp[::-1, ::-1]
    kind = "<f4" if sample == 3 else f"<u{bits // 8}"
    tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, white), (273, 8), (278, 8), (279, 8 * bits), (339, sample)]
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<4sL", b"II*\0", 8 + 8 * bits)
    data = head + turned.astype(kind).tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
    if message is None:
        levels = to_tensor(open_picture(data, "x.tif"), 8, 1).flatten().tolist()
        assert levels == sorted(levels)
        assert len(set(levels)) == 64
        return
    for read in (lambda: open_picture(data, "x.tif"), lambda: collect([Image.open(io.BytesIO(data))], 1, 8)):
        with pytest.raises(InputError, match=message):
            read()


@pytest.mark.parametrize("most", [32_767, 16_384, 4_095])
def test_sixteen_bits_with_a_sign_are_as_bright_as_without(most: int) -> None:
    """A signed file's white is 32,767; an unsigned one of twice the numbers is the oracle, and 12 bits stay 12."""
    ramp = np.linspace(0, most, 64).astype("<i2").reshape(8, 8)
    found = []
    for sample, values in ((2, ramp), (1, ramp if most == 4_095 else ramp.astype("<u2") * 2)):
        tags = [(256, 8), (257, 8), (258, 16), (259, 1), (262, 1), (273, 8), (278, 8), (279, 128), (339, sample)]
        entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags)
        data = struct.pack("<4sL", b"II*\0", 136) + values.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
        found.append(to_tensor(open_picture(data, "x.tif"), 8, 1).int())
    assert int((found[0] - found[1]).abs().max()) <= 1
    assert int(found[0].max()) == (255 if most != 16_384 else 128)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "I;16"])
def test_a_transparent_colour_key_is_white_like_alpha(mode: str) -> None:
    """tRNS of a PNG without an alpha channel; the same picture as RGBA is the oracle."""
    values = np.zeros((2100, 2100), np.uint16 if mode == "I;16" else np.uint8)
    values[:, 1000:] = 60_000 if mode == "I;16" else 200
    plain = Image.fromarray(values)
    picture = plain if mode in ("L", "I;16") else plain.convert(mode)
    key: Any = (0, 0, 0) if mode == "RGB" else picture.getpixel((0, 0))
    for side in (8, 2100):  # 2,100 squared pixels are reduced before they are resized
        buffer = io.BytesIO()
        picture.crop((0, 0, side, side)).save(buffer, "PNG", transparency=key)
        assert to_tensor(open_picture(buffer.getvalue(), "x"), 4, 1)[0, :, 0].tolist() == [255] * 4


def chunked(width: int, bits: int, kind: int, key: list[int], rows: bytes) -> bytes:
    """A PNG of one row, written by hand: Pillow writes no 16-bit colours, and no keys of 2 and 4 bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    parts = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) + chunk(b"IDAT", zlib.compress(b"\0" + rows))
    return b"\x89PNG\r\n\x1a\n" + head + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (chunked(2, 16, 2, [0x8000] * 3, struct.pack(">6H", 0, 0, 0, *[65_535] * 3)), [0, 255]),
        (chunked(2, 16, 2, [0x4000] * 3, struct.pack(">6H", *[0x4000] * 3, *[0x2000] * 3)), [255, 32]),
        (chunked(4, 2, 0, [1], b"\x1b"), [0, 255, 170, 255]),
        (chunked(2, 4, 0, [3], b"\x30"), [255, 0]),
        (chunked(2, 1, 0, [0], b"\x40"), [255, 255]),
    ],
    ids=["16 bits, key not there", "16 bits", "2 bits", "4 bits", "1 bit"],
)
def test_a_transparent_colour_is_on_the_scale_of_the_pixels(data: bytes, expected: list[int]) -> None:
    width = len(expected)
    picture = open_picture(data, "x.png")
    tall = picture.resize((width, width), Image.Resampling.NEAREST)
    tall.info = picture.info
    assert to_tensor(tall, width, 1)[0, 0].tolist() == expected
    (given,) = collect([Image.open(io.BytesIO(data))], 1, 8).images
    (drawn,) = collect([Image.fromarray(np.uint8([expected]))], 1, 8).images
    assert given.equal(drawn)


def test_camera_orientation_is_applied() -> None:
    picture = Image.new("RGB", (8, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    assert open_picture(buffer.getvalue(), "x").size == (4, 8)


def test_transparent_is_white_and_crop_is_central() -> None:
    assert to_tensor(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 4, 3).unique().tolist() == [255]
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 255
    assert to_tensor(Image.fromarray(wide), 4, 1).unique().tolist() == [255]
    assert to_tensor(Image.fromarray(wide), 4, 1, invert=True).unique().tolist() == [0]
