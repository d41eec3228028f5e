"""A person's own pictures: layouts, splits, and what is wrong with them."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from episodes import Episodes, EpisodeSampler, EpisodeShape, InputError
from episodes.datasets import make_dataset
from episodes.datasets.check import check_dataset
from episodes.datasets.folder import Folder, assign_classes, class_counts
from tests.support.image_folders import files, picture, write

SPLITS = ("train", "validation", "test")


def counts(dataset: Folder) -> list[int]:
    """Classes per split; 0 where the split is refused for having none."""
    numbers = []
    for split in SPLITS:
        try:
            numbers.append(dataset.load(split).num_classes)
        except InputError as error:
            if "has no classes" not in str(error):
                raise
            numbers.append(0)
    return numbers


def test_twelve_classes_of_six(tmp_path: Path) -> None:
    """The set a newcomer brings: every split can give 3-way episodes, training 5-way ones."""
    dataset = make_dataset("folder", root=write(tmp_path, files()))
    banks = [dataset.load(split) for split in SPLITS]
    assert [bank.num_classes for bank in banks] == [6, 3, 3]
    assert len({name for bank in banks for name in bank.class_names}) == 12
    assert all(bank.image_shape == (3, 84, 84) for bank in banks)
    assert all(bank.counts.unique().tolist() == [6] for bank in banks)
    assert banks[0].polarity == "light"
    assert banks[0].dataset == f"folder-{tmp_path.name}"
    assert banks[0].notes == ()
    EpisodeSampler(banks[0], Episodes(EpisodeShape(5, 1, 5)))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (6, (2, 2, 2)),
        (8, (4, 2, 2)), (9, (3, 3, 3)), (10, (4, 3, 3)), (12, (6, 3, 3)), (15, (9, 3, 3)), (20, (12, 4, 4)),
        (100, (60, 20, 20)),
    ],
)  # fmt: skip
def test_class_counts(classes: int, expected: tuple[int, int, int]) -> None:
    assert class_counts(classes, (0.6, 0.2, 0.2)) == expected


@pytest.mark.parametrize(
    "fractions",
    [
        (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0.5, 0.5), (0, 0.9, 0.1), (0.5, 0.5, 0), (0.1, 0.1, 0.8),
        (0.1, 0.8, 0.1),
    ],
)  # fmt: skip
def test_class_counts_always_add_up(fractions: tuple[float, float, float]) -> None:
    for classes in range(1, 60):
        given = class_counts(classes, fractions)
        assert sum(given) == classes
        assert min(given) >= 0
        assert all(n == 0 for n, share in zip(given, fractions, strict=True) if share == 0)
        if classes >= 9:
            assert all(n >= 3 for n, share in zip(given, fractions, strict=True) if share > 0)


def test_the_draw_of_classes_hangs_on_name_and_seed_alone() -> None:
    names = [f"class {i}" for i in range(30)]
    first = assign_classes(names, (0.6, 0.2, 0.2), 0)
    assert assign_classes(names[::-1], (0.6, 0.2, 0.2), 0) == first
    assert assign_classes(names, (0.6, 0.2, 0.2), 1) != first
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    a = assign_classes([*names, composed], (0.6, 0.2, 0.2), 0)
    b = assign_classes([*names, decomposed], (0.6, 0.2, 0.2), 0)
    assert a[composed] == b[decomposed]


def test_options_give_other_banks(tmp_path: Path) -> None:
    root = write(tmp_path, files())
    assert counts(Folder(root=root, fractions=[0.5, 0.25, 0.25])) == [6, 3, 3]  # type: ignore[arg-type]
    assert counts(Folder(root=root, fractions=(1, 0, 0))) == [12, 0, 0]
    names = {Folder(root=root, split_seed=seed).load("test").class_names for seed in range(3)}
    assert len(names) == 3
    light, ink = (Folder(root=root, channels=1, size=16, invert=x).load("test") for x in (False, True))
    assert light.image_shape == (1, 16, 16)
    assert (light.polarity, ink.polarity) == ("light", "ink")
    assert ink.images.equal(255 - light.images)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("prefix", ["", "My Pictures/", "a/b/"])
def test_zip_and_wrapping_folders(tmp_path: Path, zipped: bool, prefix: str) -> None:
    plain = Folder(root=write(tmp_path / "plain", files())).load("train")
    found = {**files(prefix=prefix), "__MACOSX/._x.png": b"", f"{prefix}class 00/Thumbs.db": b""}
    if zipped:
        root = str(tmp_path / "pictures.zip")
        with zipfile.ZipFile(root, "w") as archive:
            for name, data in found.items():
                archive.writestr(name, data)
    else:
        root = write(tmp_path / "other", found)
    bank = Folder(root=root).load("train")
    assert bank.class_names == plain.class_names
    assert bank.images.equal(plain.images)


def test_cache_follows_the_pictures(tmp_path: Path) -> None:
    root = write(tmp_path, files())
    first = Folder(root=root).load("train")
    name = first.class_names[0]
    write(tmp_path, {f"{name}/new.png": picture(3)})
    assert len(Folder(root=root).load("train")) == len(first) + 1


def test_pictures_in_sub_folders_belong_to_the_class(tmp_path: Path) -> None:
    found = {**files(3, 2), "class 00/old/1.png": picture(1), "class 00/old/older/2.png": picture(2)}
    bank = Folder(root=write(tmp_path, found), fractions=(1, 0, 0)).load("train")
    assert bank.counts.tolist() == [4, 2, 2]


@pytest.mark.parametrize("name", ["val", "validation", "Valid"])
def test_split_folders(tmp_path: Path, name: str) -> None:
    found = {}
    for split, number in (("train", 5), (name, 3), ("test", 2)):
        found.update({f"{split}/{split}-{key}": data for key, data in files(number, 2).items()})
    root = write(tmp_path, found)
    assert counts(Folder(root=root)) == counts(Folder(root=root, split_by="folders")) == [5, 3, 2]
    shutil.rmtree(tmp_path / name)
    held = r"'validation' of .* has no classes \(of 7: train 5, validation 0, test 2\)"
    with pytest.raises(InputError, match=held):
        Folder(root=root).load("validation")
    write(tmp_path, files(2, 2))
    with pytest.raises(InputError, match=r"only folders train, .* it holds class 00, class 01"):
        Folder(root=root).load("train")
    assert sum(counts(Folder(root=root, split_by="fractions"))) == 4


def test_a_class_in_two_splits_is_refused(tmp_path: Path) -> None:
    found = {**files(3, 2, "train/"), **files(2, 2, "test/")}
    with pytest.raises(InputError, match=r"the class 'class 00' .* is in both test and train"):
        Folder(root=write(tmp_path, found)).load("train")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    found = {name.replace("class 00", "train"): data for name, data in files(6, 2).items()}
    assert counts(Folder(root=write(tmp_path, found))) == [2, 2, 2]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("comma", [",", ";"])
def test_table_of_splits(tmp_path: Path, inside: bool, comma: str) -> None:
    splits = ["train"] * 4 + ["val", "test"]
    rows = [("class", "split"), *((f"class {i:02d}", split) for i, split in enumerate(splits))]
    table = "\ufeff" + "\n".join(comma.join(row) for row in rows)
    root = write(tmp_path / "root", files(8, 2))
    place = tmp_path / "root" / "splits.csv" if inside else tmp_path / "mine.csv"
    place.write_text(table, encoding="utf-8")
    dataset = Folder(root=root, splits_csv=None if inside else str(place))
    assert counts(dataset) == [4, 1, 1]
    assert dataset.load("validation").class_names == ("class 04",)
    assert dataset.load("test").notes == ("left aside (2), classes that are not in the table: class 06, class 07",)
    assert sum(counts(Folder(root=root, split_by="fractions"))) == 8
    place.write_text(table.replace("val", "train"), encoding="utf-8")
    assert counts(dataset) == [5, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns class,split"),
        ("name,part\n", "needs the columns class,split"),
        ("class,split\nclass 00,dev\n", "line 2: unknown split 'dev'; allowed: train, validation, test"),
        ("class,split\ncat,train\n", "line 2: there is no class folder 'cat'; there are 8, such as"),
        ("class,split\nclass 00,train\nclass 00,test\n", "'class 00' is in both train and test"),
        ("class,split\nclass 00\n", "unknown split ''"),
    ],
)
def test_odd_tables(tmp_path: Path, text: str, message: str) -> None:
    root = write(tmp_path, {**files(8, 2), "splits.csv": text.encode()})
    with pytest.raises(InputError, match=message):
        Folder(root=root).load("train")


def test_broken_pictures_are_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = files(3, 4)
    found["class 01/2.bmp"] = b"not a picture"
    found["class 02/0.png"] = found["class 02/0.png"][:50]
    root = write(tmp_path, found)
    with caplog.at_level(logging.WARNING):
        bank = Folder(root=root, fractions=(1, 0, 0)).load("train")
    assert bank.counts.tolist() == [4, 3, 3]
    assert len(bank.notes) == 1
    assert bank.notes[0].startswith("2 unreadable pictures skipped: class 01/2.bmp is not a readable picture")
    assert "class 02/0.png" in bank.notes[0]
    assert caplog.text.count("unreadable") == 1
    again = Folder(root=root, fractions=(1, 0, 0)).load("train")
    assert again.notes == bank.notes, "the cache keeps the notes"
    assert "object at" not in bank.notes[0]


def test_many_broken_pictures_are_counted(tmp_path: Path) -> None:
    found = {name: b"x" if "class 00" in name else data for name, data in files(3, 14).items()}
    bank = Folder(root=write(tmp_path, found), fractions=(1, 0, 0)).load("train")
    assert bank.class_names == ("class 01", "class 02")
    assert "the class 'class 00' was left out" in bank.notes[0]
    assert bank.notes[1].startswith("14 unreadable pictures skipped")
    assert bank.notes[1].endswith("and 4 more")
    all_broken = write(tmp_path / "all", dict.fromkeys(files(2, 2), b"x"))
    with pytest.raises(InputError, match="no picture of the split 'train'"):
        Folder(root=all_broken, fractions=(1, 0, 0)).load("train")


def test_loose_pictures_are_left_aside(tmp_path: Path) -> None:
    bank = Folder(root=write(tmp_path, {**files(4, 2), "cover.png": picture(1)})).load("train")
    assert bank.notes == ("left aside (1), pictures outside any class folder: cover.png",)


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        Folder(root=str(tmp_path / "empty")).load("train")
    with pytest.raises(InputError, match="3 pictures but no class folders"):
        Folder(root=write(tmp_path / "flat", {f"{i}.png": picture(i) for i in range(3)})).load("train")
    with pytest.raises(InputError, match="does not exist; give a folder, or a zip"):
        Folder(root=str(tmp_path / "nothing")).load("train")
    with pytest.raises(InputError, match=r"set --data\.root"):
        Folder().load("train")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(InputError, match="not a readable zip"):
        Folder(root=str(tmp_path / "cut.zip")).load("train")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a/../../../evil.png", picture(1))
    with pytest.raises(InputError, match="points outside"):
        Folder(root=str(tmp_path / "bad.zip")).load("train")
    assert not list(tmp_path.parent.glob("evil.png"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 4}, r"data\.options\.channels must be 1 \(grey\) or 3"),
        ({"split_by": "luck"}, "auto, folders, csv, fractions"),
        ({"fractions": (0.5, 0.5)}, "three numbers"),
        ({"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"fractions": (1.5, -0.5, 0)}, "from 0 to 1"),
        ({"fractions": "most"}, "three numbers"),
        ({"size": 4}, "between 8 and 512"),
        ({"colour": True}, "no option 'colour'"),
    ],
)
def test_odd_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_dataset("folder", **options)
    with pytest.raises(InputError, match=r"splits_csv is /nowhere\.csv"):
        Folder(root=".", splits_csv="/nowhere.csv").load("train")


def test_csv_asked_for_and_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no splits\.csv"):
        Folder(root=write(tmp_path, files(3, 2)), split_by="csv").load("train")


def test_check(tmp_path: Path) -> None:
    found = {}
    for split, number in (("train", 3), ("test", 2)):
        for name, data in files(number, 3).items():
            found[f"{split}/{split}-{name}"] = data
    found["train/train-class 00/0.png"] = b"broken"
    found["train/train-class 01/0.png"] = found["train/train-class 01/1.jpeg"] = picture(200)
    found["test/test-class 01/0.png"] = picture(200)
    for i, name in enumerate(n for n in found if n.startswith("test/test-class 00")):
        found[name] = picture(210 + i)
    found["test/test-class 01/1.jpeg"] = picture(220)
    found["test/test-class 01/2.bmp"] = picture(221)
    report = check_dataset(Folder(root=write(tmp_path, found)))
    assert [(s.split, s.classes, s.pictures, s.fewest, s.median, s.most) for s in report.splits] == [
        ("train", 3, 8, 2, 3.0, 3),
        ("test", 2, 6, 3, 3.0, 3),
    ]
    assert "has no classes" in report.missing["validation"]
    assert [[(p.class_name, p.number) for p in group] for group in report.crossing] == [
        [("train-class 01", 0), ("train-class 01", 1), ("test-class 01", 0)]
    ]
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["crossing_groups"] == 1
    for text in ("folder", "1 unreadable pictures skipped", "across train and test", "2 to 3, median 3"):
        assert text in str(report)
    with pytest.raises(InputError, match="does not exist"):
        check_dataset(Folder(root=str(tmp_path / "nothing")))


def test_one_class_only_is_said(tmp_path: Path) -> None:
    bank = Folder(root=write(tmp_path, files(1, 3, "wrap/inner/")), fractions=(1, 0, 0)).load("train")
    assert bank.notes == (
        "there is only one class, wrap/inner/class 00; every class needs a folder of its own beside it",
    )


@pytest.mark.parametrize("name", ["Splits.csv", "SPLITS.CSV", "splits.CSV"])
@pytest.mark.parametrize("prefix", ["", "wrap/", "wrap/inner/"])
def test_a_table_in_other_capitals_or_beside_the_wrapper(tmp_path: Path, name: str, prefix: str) -> None:
    table = "class,split\n" + "".join(f"class {i:02d},{'test' if i else 'train'}\n" for i in range(8))
    root = write(tmp_path, {**files(8, 2, "wrap/inner/"), prefix + name: table.encode()})
    assert counts(Folder(root=root)) == [1, 0, 7]
    assert Folder(root=root).load("train").notes == ()


def test_tables_that_are_not_taken_are_said(tmp_path: Path) -> None:
    root = write(tmp_path, {**files(4, 2), "class 00/splits.csv": b"class,split\n"})
    (note,) = Folder(root=root).load("train").notes
    assert note == "left aside (1), tables of splits that are not the class folders' own: class 00/splits.csv"
    write(tmp_path, {"splits.csv": b"class,split\n", "Splits.csv": b"class,split\n"})
    with pytest.raises(InputError, match=r"tables of splits Splits\.csv, splits\.csv; keep one"):
        Folder(root=root).load("train")


SPLIT_TABLE = [("class", "split"), *((f"é{i:02d}", "train" if i < 4 else "test") for i in range(6))]


def spelled(rows: list[tuple[str, str]], delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "table",
    [
        spelled(SPLIT_TABLE).encode(),
        unicodedata.normalize("NFD", spelled(SPLIT_TABLE)).encode(),
        spelled(SPLIT_TABLE).replace("class,split", "Class,Split").encode(),
        spelled(SPLIT_TABLE).replace("class,split", " CLASS , SPLIT ").encode(),
        spelled(SPLIT_TABLE).replace(",", " ,  ").replace("\n", "  \n").encode(),
        spelled(SPLIT_TABLE).replace(",", "\u00a0,").encode(),
        spelled(SPLIT_TABLE, "\t").encode(),
        spelled(SPLIT_TABLE, "|").encode(),
        spelled(SPLIT_TABLE, ";").encode("utf-8-sig"),
        spelled(SPLIT_TABLE, "\t").encode("utf-16"),
        spelled(SPLIT_TABLE).encode("utf-16-le"),
        spelled(SPLIT_TABLE).encode("utf-16-be"),
        spelled(SPLIT_TABLE).encode("utf-32"),
        b"sep=;\r\n" + spelled(SPLIT_TABLE, ";").replace("\n", "\r\n").encode(),
        spelled(SPLIT_TABLE).replace("\n", "\r").encode(),
        b"\n\n" + spelled(SPLIT_TABLE).encode() + b",\n\n , \n",
        spelled([(b, a) for a, b in SPLIT_TABLE]).encode(),
        spelled([("no", *row) for row in SPLIT_TABLE]).encode(),  # type: ignore[misc]
        "".join(f'"{a}","{b.upper() if b != "split" else b}"\n' for a, b in SPLIT_TABLE).encode(),
    ],
)  # fmt: skip
def test_tables_as_people_make_them(tmp_path: Path, table: bytes, disk: str) -> None:
    names = [unicodedata.normalize(disk, f"é{i:02d}") for i in range(6)]
    root = write(tmp_path / "root", {f"{name}/{i}.png": picture(i) for name in names for i in range(2)})
    write(tmp_path / "root", {"splits.csv": table})
    assert counts(Folder(root=root)) == [4, 0, 2]
    (tmp_path / "root" / "splits.csv").rename(tmp_path / "mine.csv")
    dataset = Folder(root=root, splits_csv=str(tmp_path / "mine.csv"))
    assert counts(dataset) == [4, 0, 2]
    assert set(dataset.load("test").class_names) == set(names[4:])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("class,split\nCAT,train\n", "no class folder 'CAT'; did you mean 'cat', in other capitals"),
        ("class,split,split\ncat,train,test\n", "needs the columns class,split, each once"),
        ("cat,train\n", "its first line is 'cat,train'"),
    ],
)
def test_the_likely_cause_is_named(tmp_path: Path, table: str, message: str) -> None:
    root = write(tmp_path, {**{f"{n}/{i}.png": picture(i) for n in ("cat", "dog") for i in range(2)}})
    write(tmp_path, {"splits.csv": table.encode()})
    with pytest.raises(InputError, match=message):
        Folder(root=root).load("train")


def test_a_table_of_an_older_encoding_says_what_to_do(tmp_path: Path) -> None:
    root = write(tmp_path, {**files(3, 2), "splits.csv": "class,split\né,train\n".encode("latin-1")})
    with pytest.raises(InputError, match="writes one as 'CSV UTF-8'"):
        Folder(root=root).load("train")


def test_class_names_that_only_differ_in_how_they_are_written(tmp_path: Path) -> None:
    found = {f"{unicodedata.normalize(form, 'é')}/{i}.png": picture(i) for form in ("NFC", "NFD") for i in range(2)}
    root = write(tmp_path, {**found, "splits.csv": "class,split\n é,train\n".encode()})
    assert Folder(root=root).load("train").num_classes == 1, "given exactly, but for a blank"
    write(tmp_path, {"splits.csv": "class,split\n\u2003e\u0301\u2003,train\n".encode()})
    assert Folder(root=root).load("train").class_names == ("e\u0301",)


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_failing_disk_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    dataset = Folder(root=write(tmp_path, files(3, 4)), fractions=(1, 0, 0))
    true = open

    def failing(path: Any, *rest: Any, **options: Any) -> Any:
        if str(path).endswith("0.png"):
            raise OSError(code, os.strerror(code))
        return true(path, *rest, **options)

    with monkeypatch.context() as broken:
        broken.setattr("builtins.open", failing)
        with pytest.raises(InputError, match=r"class 00/0\.png .* could not be read just now .* Try again"):
            dataset.load("train")
    bank = dataset.load("train")
    assert (len(bank), bank.notes) == (12, ())


def test_pictures_that_change_places_are_seen(tmp_path: Path) -> None:
    """Two BMPs of one size, their times equal, under each other's names: by `mv` alone."""
    found = {}
    for i in range(4):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(buffer, "BMP")
        found[f"c{i}/x.bmp"] = buffer.getvalue()
    dataset = Folder(root=write(tmp_path, found), fractions=(1, 0, 0), size=8)
    for name in found:
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    assert dataset.load("train").images[:, 0, 0, 0].tolist() == [0, 60, 120, 180]
    (tmp_path / "c1/x.bmp").rename(tmp_path / "aside")
    (tmp_path / "c2/x.bmp").rename(tmp_path / "c1/x.bmp")
    (tmp_path / "aside").rename(tmp_path / "c2/x.bmp")
    assert dataset.load("train").images[:, 0, 0, 0].tolist() == [0, 120, 60, 180]


def test_a_class_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, files(3, 2))
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with open(os.path.join(odd, b"\xff.png"), "wb") as file:
        file.write(picture(7))
    bank = Folder(root=str(tmp_path), fractions=(1, 0, 0)).load("train")
    assert bank.class_names == ("caf\\xe9", "class 00", "class 01", "class 02")
    assert bank.counts.tolist() == [1, 2, 2, 2]
    assert len(bank.fingerprint) == 16
    assert str(check_dataset(Folder(root=str(tmp_path)))).encode()
    assert Folder(root=str(tmp_path), fractions=(1, 0, 0)).load("train").class_names == bank.class_names


def test_every_load_says_what_was_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Folder(root=write(tmp_path, {**files(3, 2), "class 00/a.heic": b"x"}), fractions=(1, 0, 0))
    for _ in range(2):
        caplog.clear()
        dataset.load("train")
        assert caplog.text.count("left aside (1), files that are no PNG") == 1
