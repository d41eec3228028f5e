"""Which files of a folder or a zip are taken, which are left aside, and that the latter are named."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, features

from episodes import InputError
from episodes.datasets.check import check_dataset
from episodes.datasets.folder import Folder
from episodes.untrusted import folder_walk
from episodes.untrusted.archives import Source
from episodes.untrusted.class_folders import class_folders
from episodes.untrusted.picture_files import find_pictures, looks_like_picture


def picture(kind: str = "PNG", level: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (level, level, 0)).save(buffer, kind)
    return buffer.getvalue()


def write(root: Path, found: dict[str, bytes]) -> Path:
    for name, data in found.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, found: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in found.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("make", [write, zipped])
def test_content_decides(tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]) -> None:
    odd = {".jfif": "JPEG", ".jpe": "JPEG", "": "JPEG", ".jpg_medium": "JPEG", ".PNG": "PNG", ".dat": "WEBP"}
    odd |= {".bin": "TIFF", ".x": "BMP", ".y": "GIF", ".z": "PPM"}
    if features.check("avif"):
        odd[".avif"] = "AVIF"
    found = {f"c{i:02d}/a{ending}": picture(kind) for i, (ending, kind) in enumerate(odd.items())}
    none = {"c00/notes.txt": b"BM is a car maker", "c00/b.heic": b"\0\0\0\x18ftypheic", "c01/P5 of us": b"P5 of us"}
    pictures, notes = find_pictures(Source(make(tmp_path / "x", {**found, **none, "c00/Thumbs.db": b"x"})))
    assert pictures == sorted(found)
    assert len(notes) == 1
    assert notes[0].startswith("left aside (3), files that are no PNG, JPEG, ")
    for part in (".txt 1", ".heic 1", "no suffix 1", "c00/b.heic, c00/notes.txt, c01/P5 of us"):
        assert part in notes[0]
    bank = Folder(root=str(tmp_path / "x"), size=8, fractions=(1, 0, 0)).load("train")
    assert bank.num_classes == len(odd)


def test_heads_of_pictures() -> None:
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", *(("AVIF",) if features.check("avif") else ())):
        assert looks_like_picture(picture(kind)[:64]), kind
    for head in (b"", b"BM", b"BMW and Audi make many cars", b"P5", b"MM", b"II", b"RIFF1234WAVE", b"<svg", b"%PDF-1"):
        assert not looks_like_picture(head)


def test_one_reader_for_predict_and_for_data(tmp_path: Path) -> None:
    """A folder wrapped twice gives the classes inside, to whoever asks."""
    found = {f"wrap/inner/c{i}/{j}.png": picture(level=10 * i) for i in range(4) for j in range(2)}
    folders = class_folders(Source(write(tmp_path, found)))
    assert sorted(folders.files) == ["c0", "c1", "c2", "c3"]
    assert folders.wrapper == "wrap/inner/"
    assert folders.only_one is None
    bank = Folder(root=str(tmp_path), size=8, fractions=(1, 0, 0)).load("train")
    assert bank.class_names == ("c0", "c1", "c2", "c3")


def test_links(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", {f"c{i}/{j}.png": picture() for i in range(3) for j in range(2)})
    write(tmp_path / "elsewhere", {"1.png": picture(), "sub/2.png": picture()})
    (plain / "root").symlink_to("/")
    (plain / "c0" / "up").symlink_to(tmp_path)
    (plain / "c0" / "self").symlink_to(plain / "c0")
    (plain / "c0" / "gone.png").symlink_to("/nowhere/at/all")
    (plain / "c1" / "kernel").symlink_to("/proc")
    (plain / "c1" / "ring").symlink_to("ring")
    (plain / "far").symlink_to(tmp_path / "elsewhere")
    (plain / "c2" / "one.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    os.mkfifo(plain / "c2" / "pipe.png")
    source = Source(plain)
    plain_names = [f"c{i}/{j}.png" for i in range(3) for j in range(2)]
    assert source.names == sorted([*plain_names, "c2/one.png", "far/1.png", "far/sub/2.png"])
    assert source.aside == [
        "left aside (1), links into the system: c1/kernel",
        "left aside (2), links that lead nowhere: c0/gone.png, c1/ring",
        "left aside (3), links to a folder that holds the link: c0/self, c0/up, root",
        "left aside (1), things that are no files: c2/pipe.png",
    ]


def test_links_bring_in_no_more_than_a_disks_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain", {"c/1.png": picture()})
    write(tmp_path / "much", {f"{i}.txt": b"" for i in range(20)})
    (tmp_path / "plain" / "link").symlink_to(tmp_path / "much")
    assert len(Source(tmp_path / "plain").names) == 21
    monkeypatch.setattr(folder_walk, "MAX_LINKED", 15)
    with pytest.raises(InputError, match="links that bring in more than 15 files; remove the link"):
        Source(tmp_path / "plain")


def test_links_that_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two links to the next folder in each of sixteen: 65,536 ways to the last."""
    for number in range(17):
        write(tmp_path / f"f{number}", {"1.png": picture()})
    for number in range(16):
        for name in "ab":
            (tmp_path / f"f{number}" / name).symlink_to(tmp_path / f"f{number + 1}")
    monkeypatch.setattr(folder_walk, "MAX_LINKED", 5_000)  # the usual bound takes ten seconds to reach
    with pytest.raises(InputError, match="links that bring in more than 5,000 files"):
        Source(tmp_path / "f0")


def test_two_class_folders_of_one_place_both_stay(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"b/1.png": picture(), "c/1.png": picture()})
    write(tmp_path / "other", {"1.png": picture(), "2.png": picture()})
    (root / "a").symlink_to(root / "b")
    for name in "xy":
        (root / name).symlink_to(tmp_path / "other")
    bank = Folder(root=str(root), size=8, fractions=(1, 0, 0)).load("train")
    assert bank.class_names == ("a", "b", "c", "x", "y")
    assert bank.counts.tolist() == [1, 1, 1, 2, 2]
    assert bank.notes == (
        "one folder under several names, its pictures taken for each: a, b",
        "one folder under several names, its pictures taken for each: x, y",
    )


def test_what_may_not_be_read_is_counted_and_named() -> None:
    if not hasattr(os, "getuid"):
        pytest.skip("no modes here")
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which is closed to others
        root = write(Path(name) / "root", {f"c{i}/{j}.png": picture() for i in range(3) for j in range(2)})
        Path(name).chmod(0o755)
        (root / "c1").chmod(0)
        (root / "c2" / "0.png").chmod(0)
        names, aside = _as_nobody(lambda: (Source(root).names, Source(root).aside))
        (root / "c1").chmod(0o755)
        assert names == ["c0/0.png", "c0/1.png", "c2/1.png"]
        assert aside == [
            "left aside (1), files that may not be read: c2/0.png",
            "left aside (1), folders that may not be read: c1",
        ]
        root.chmod(0)
        (message,) = _as_nobody(lambda: [_refusal(lambda: Source(root))])
        root.chmod(0o755)
        assert "may not be read" in message


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except InputError as error:
        return str(error)
    return "accepted"


def _as_nobody(call: Callable[[], object]) -> list[list[str]]:
    """Result of a call by a user without rights of root."""
    if os.getuid() != 0:
        return json.loads(json.dumps(call()))
    read, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(end, json.dumps(call()).encode())
        except BaseException as error:
            os.write(end, json.dumps([repr(error)]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(end)
    with os.fdopen(read) as answer:
        return json.load(answer)


def test_zips_with_backslashes(tmp_path: Path) -> None:
    found = {f"top\\c{i}\\{j}.png": picture(level=20 * i) for i in range(3) for j in range(2)}
    path = zipped(tmp_path / "windows.zip", {**found, "top\\empty\\": b""})
    assert Source(path).names == sorted(name.replace("\\", "/") for name in found)
    bank = Folder(root=str(path), size=8, fractions=(1, 0, 0)).load("train")
    assert bank.class_names == ("c0", "c1", "c2")
    for name in ("..\\out.png", "a\\..\\..\\out.png", "\\out.png", "C:\\out.png", "\\\\host\\share\\out.png"):
        path = zipped(tmp_path / "bad.zip", {name: picture()})
        with pytest.raises(InputError, match="points outside"):
            _ = Source(path).names


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("c0/1.png", picture(level=1))
        archive.writestr("c0/1.png", picture(level=2))
        archive.writestr("c1\\1.png", picture(level=1))
        archive.writestr("c1/1.png", picture(level=3))
    source = Source(tmp_path / "a.zip")
    assert source.names == ["c0/1.png", "c1/1.png"]
    assert source.read("c1/1.png") == picture(level=3)
    assert source.aside == ["left aside (2), members that a later one of the same name hides: c0/1.png, c1/1.png"]


def zip64(members: dict[str, bytes], other: dict[str, bytes]) -> bytes:
    """Two zips in one file: by the record at its end it holds ``members``, by the zip64 record ``other``."""

    def parts(found: dict[str, bytes], at: int) -> tuple[bytes, bytes]:
        buffer = io.BytesIO()
        buffer.write(b"\0" * at)
        with zipfile.ZipFile(buffer, "a") as archive:
            for name, data in found.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        data = buffer.getvalue()
        (start,) = struct.unpack_from("<L", data, data.rfind(b"PK\5\6") + 16)
        return data[at:start], data[start : data.rfind(b"PK\5\6")]

    bodies, list_other = parts(other, 0)
    more, listed = parts(members, len(bodies))
    data = bodies + more
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, *(len(other),) * 2, len(list_other), len(data))
    data += list_other
    at = len(data)
    data += record + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    return data + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, len(members), len(members), len(listed), 0, 0)


def test_two_zips_with_other_zip64_directories_have_other_fingerprints(tmp_path: Path) -> None:
    pictures = [picture("BMP", level) for level in (10, 20)]
    files = []
    for first, second in ((0, 1), (1, 0)):
        path = tmp_path / f"{first}.zip"
        path.write_bytes(zip64({"c/a.bmp": pictures[0]}, {"c/a.bmp": pictures[first], "c/b.bmp": pictures[second]}))
        files.append(path)
    one, two = map(Source, files)
    assert files[0].stat().st_size == files[1].stat().st_size
    assert one.names == two.names == ["c/a.bmp", "c/b.bmp"], "zipfile goes by the zip64 record"
    assert one.read("c/a.bmp") != two.read("c/a.bmp")
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize("kind", ["tar", "gzip", "7z", "rar"])
def test_other_archives_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pictures.zip"
    if kind in ("tar", "gzip"):
        with tarfile.open(path, "w" if kind == "tar" else "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    else:
        path.write_bytes({"7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!\x1a\x07"}[kind] + bytes(100))
    with pytest.raises(InputError, match=f"is a {kind} archive, no zip; unpack it"):
        Source(path)


def test_one_picture_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "me"
    path.write_bytes(picture("JPEG"))
    source = Source(path)
    assert source.names == ["me"]
    assert source.read("me") == picture("JPEG")
    with pytest.raises(InputError, match="has one picture but no class folders"):
        Folder(root=str(path)).load("train")


def test_checks_name_what_is_left_aside(tmp_path: Path) -> None:
    found = {f"c{i}/{j}.png": picture(level=10 * i + j) for i in range(4) for j in range(2)}
    write(tmp_path, {**found, "c0/movie.mp4": b"x", "c1/broken.png": b"x"})
    text = str(check_dataset(Folder(root=str(tmp_path), size=8)))
    assert "by ending .mp4 1: c0/movie.mp4" in text
