"""miniImageNet from csv files and from learn2learn's pickles, and pickles that are made to do harm."""

from __future__ import annotations

import collections
import csv
import io
import os
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.check import check_dataset
from episodes.datasets.miniimagenet import MiniImageNet
from episodes.datasets.miniimagenet_split import ravi_split
from episodes.untrusted.archives import Source
from episodes.untrusted.pickles import load_arrays
from episodes.untrusted.sources import to_tensor


def jpeg(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 255, (84, 84, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG")
    return buffer.getvalue()


def write_csv(root: Path, per_class: int = 3, classes: int = 4) -> dict[str, bytes]:
    """The three csv files, and the pictures they name."""
    pictures: dict[str, bytes] = {}
    for file, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        lines = ["filename,label"]
        for label in ravi_split(split)[:classes]:
            for i in range(per_class):
                name = f"{label}{i:08d}.jpg"
                pictures[name] = jpeg(len(pictures))
                lines.append(f"{name},{label}")
        (root / f"{file}.csv").write_text("\n".join(lines))
    return pictures


def write_zip(path: Path, pictures: dict[str, bytes], prefix: str = "images/") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in pictures.items():
            archive.writestr(prefix + name, data)


def content(split: str = "train", classes: int = 3, per_class: int = 4) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 255, (classes * per_class, 84, 84, 3), dtype=np.uint8)
    numbers = np.arange(classes * per_class).reshape(classes, per_class).tolist()
    return {"image_data": images, "class_dict": dict(zip(ravi_split(split), numbers, strict=False))}


def save(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def test_published_split() -> None:
    splits = [set(ravi_split(split)) for split in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [64, 16, 20]
    assert len(set.union(*splits)) == 100


def test_csv_with_zip_or_folder_read_alike(tmp_path: Path) -> None:
    pictures = write_csv(tmp_path)
    write_zip(tmp_path / "any_name.zip", pictures, "deep/down/")
    zipped = MiniImageNet(root=str(tmp_path)).load("validation")
    assert zipped.class_names == ravi_split("validation")[:4]
    assert zipped.image_shape == (3, 84, 84)
    assert zipped.polarity == "light"
    assert zipped.counts.tolist() == [3, 3, 3, 3]
    assert any("4 of the validation split's 16 classes" in note for note in zipped.notes)
    assert any("3 to 3 pictures" in note for note in zipped.notes)
    (tmp_path / "images").mkdir()
    for name, data in pictures.items():
        (tmp_path / "images" / name).write_bytes(data)
    (tmp_path / "any_name.zip").unlink()
    folder = MiniImageNet(root=str(tmp_path)).load("validation")
    assert folder.images.equal(zipped.images)
    assert make_dataset("miniimagenet", root=str(tmp_path), size=32).load("test").image_shape == (3, 32, 32)


def test_the_centre_is_what_a_cut_picture_would_be(tmp_path: Path) -> None:
    """Of pictures of 40 x 60, three quarters of the square of 40 round the middle, at 30 without any resampling."""
    pictures = write_csv(tmp_path)
    colours = np.random.default_rng(0).integers(0, 256, (len(pictures), 40, 60, 3), dtype=np.uint8)
    for pixels, name in zip(colours, pictures, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        pictures[name] = buffer.getvalue()
    write_zip(tmp_path / "images.zip", pictures)
    whole = MiniImageNet(root=str(tmp_path), size=40).load("validation")
    cut = make_dataset("miniimagenet", {"centre": 0.75}, root=str(tmp_path), size=30).load("validation")
    assert cut.images.equal(whole.images[..., 5:35, 5:35])
    assert cut.pixels != MiniImageNet(root=str(tmp_path), size=30).load("validation").pixels


def test_the_centre_of_a_pickle_is_that_of_the_same_pictures_in_files(tmp_path: Path) -> None:
    images = content("validation")["image_data"]
    save(tmp_path / "mini-imagenet-cache-val.pkl", content("validation"))
    cut = MiniImageNet(root=str(tmp_path), centre=0.5).load("validation")
    expected = to_tensor(Image.fromarray(images[0]), 84, 3, centre=0.5)
    assert cut.image_shape == (3, 84, 84)
    assert any(picture.equal(expected) for picture in cut.images)


@pytest.mark.parametrize("centre", [0, 0.49, 1.1, float("nan")])
def test_odd_centres_are_refused(centre: float) -> None:
    with pytest.raises(InputError, match=r"data.options.centre must be between 0.5 and 1"):
        make_dataset("miniimagenet", {"centre": centre})


def test_missing_pictures_are_counted_and_the_first_named(tmp_path: Path) -> None:
    pictures = write_csv(tmp_path)
    names = sorted(pictures)
    write_zip(tmp_path / "images.zip", {name: pictures[name] for name in names[1:]})
    split = next(s for s in ("train", "validation", "test") if names[0][:9] in ravi_split(s))
    with pytest.raises(InputError, match=rf"lacks 1 of the 12 pictures .* the first is {names[0]}"):
        MiniImageNet(root=str(tmp_path)).load(split)


def test_csv_of_another_split_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "images.zip", write_csv(tmp_path))
    (tmp_path / "train.csv").write_text((tmp_path / "test.csv").read_text())
    with pytest.raises(InputError, match="4 classes that are not in Ravi & Larochelle's train split"):
        MiniImageNet(root=str(tmp_path)).load("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns filename,label"),
        ("a,b\n1,2", "needs the columns filename,label"),
        ("filename,label\n", "lists no pictures"),
        ("filename,label\nx.jpg\n", "line 2, lacks"),
        ("filename,label\nx.jpg,n01532829\nx.jpg,n01558993\n", "lists x.jpg 2 times"),
        ("filename,label\n../../etc/passwd,n01532829\n", "lacks 1 of the 1 pictures"),
    ],
)
def test_odd_tables(tmp_path: Path, text: str, message: str) -> None:
    write_zip(tmp_path / "images.zip", write_csv(tmp_path))
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        MiniImageNet(root=str(tmp_path)).load("train")


def test_several_zips_are_one(tmp_path: Path) -> None:
    """The shared data's way: a hundred pictures a class in one file, the other five hundred in a second."""
    pictures = write_csv(tmp_path)
    names = list(pictures)
    write_zip(tmp_path / "one.zip", {name: pictures[name] for name in names[::2]})
    write_zip(tmp_path / "two.zip", {name: pictures[name] for name in [*names[1::2], names[0]]}, "deep/")
    apart = MiniImageNet(root=str(tmp_path)).load("train")
    with pytest.raises(InputError, match="looked in"):
        MiniImageNet(root=str(tmp_path / "nowhere")).load("train")
    write_zip(tmp_path / "images.zip", pictures)  # alone, where it is there
    assert MiniImageNet(root=str(tmp_path)).load("train").images.equal(apart.images)
    (tmp_path / "images.zip").unlink()
    write_zip(tmp_path / "two.zip", {**{name: pictures[name] for name in names[1::2]}, names[0]: jpeg(99)})
    with pytest.raises(InputError, match=f"{names[0]} is .* of .*one.zip and .* of .*two.zip, and the two differ"):
        MiniImageNet(root=str(tmp_path)).load("train")
    (tmp_path / "two.zip").unlink()
    with pytest.raises(InputError, match=r"one.zip lacks 6 of the 12 pictures"):
        MiniImageNet(root=str(tmp_path)).load("train")


@pytest.mark.parametrize("other", ["another picture", "the same"])
def test_a_name_twice_in_one_zip_is_one_picture_or_refused(tmp_path: Path, other: str) -> None:
    pictures = write_csv(tmp_path)
    name, data = next(iter(pictures.items()))
    write_zip(tmp_path / "one.zip", pictures)
    alone = MiniImageNet(root=str(tmp_path)).load("train")
    with zipfile.ZipFile(tmp_path / "one.zip", "a") as archive:
        archive.writestr(f"else/{name}", data if other == "the same" else jpeg(99))
    if other == "the same":
        assert MiniImageNet(root=str(tmp_path)).load("train").images.equal(alone.images)
        return
    with pytest.raises(InputError, match=f"{name} is else/{name} of .*one.zip and images/{name} of .*one.zip, and"):
        MiniImageNet(root=str(tmp_path)).load("train")


def test_duplicates_are_noted_and_reported(tmp_path: Path) -> None:
    pictures = write_csv(tmp_path)
    names = sorted(pictures)
    by_split = {s: [n for n in names if n[:9] in ravi_split(s)] for s in ("train", "validation")}
    a, b, c = *by_split["train"][:4:3], by_split["validation"][0]
    pictures[b] = pictures[c] = pictures[a]
    write_zip(tmp_path / "images.zip", pictures)
    dataset = MiniImageNet(root=str(tmp_path))
    assert any(f"1 groups: {a} = {b}" in note for note in dataset.load("train").notes)
    report = check_dataset(dataset)
    assert len(report.duplicates) == len(report.crossing) == 1
    assert [place.split for place in report.duplicates[0]] == ["train", "train", "validation"]
    assert "1 across train and validation" in str(report)
    assert report.to_dict()["splits"][0]["pictures"] == 12


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    held = content()
    held["class_dict"] = collections.OrderedDict(
        (name, [np.int64(n) for n in numbers]) for name, numbers in held["class_dict"].items()
    )
    held["extra"] = [{1, 2}, frozenset({3}), (b"bytes", bytearray(b"more"), 1.5, None, True)]
    held["turned"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    held["big"] = np.arange(3, dtype=">i4")
    loaded = load_arrays(save(tmp_path / "a.pkl", held, protocol))
    assert loaded["extra"] == held["extra"]
    for name in ("image_data", "turned", "big"):
        assert np.array_equal(loaded[name], held[name])
    save(tmp_path / "mini-imagenet-cache-train.pkl", held, protocol)
    bank = MiniImageNet(root=str(tmp_path)).load("train")
    assert bank.class_names == ravi_split("train")[:3]
    assert np.array_equal(bank.images.numpy().transpose(0, 2, 3, 1), held["image_data"])


def test_pickles_of_numpy_1_and_of_python_2(tmp_path: Path) -> None:
    data = pickle.dumps({"a": np.arange(5)}, protocol=2).replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "old.pkl").write_bytes(data)
    assert load_arrays(tmp_path / "old.pkl")["a"].tolist() == [0, 1, 2, 3, 4]
    (tmp_path / "older.pkl").write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nI2\ntcnumpy\ndtype\n"
        b"(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x80\\xff\\x00'\ntb."
    )
    assert load_arrays(tmp_path / "older.pkl").tolist() == [[1, 128], [255, 0]]


def test_pickle_named_val_and_resized(tmp_path: Path) -> None:
    save(tmp_path / "mini-imagenet-cache-val.pkl", content("validation"))
    assert MiniImageNet(root=str(tmp_path)).load("validation").num_classes == 3
    assert MiniImageNet(root=str(tmp_path), size=28).load("validation").image_shape == (3, 28, 28)


class Evil:
    """Unpickles by calling what it is given."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.what = (call, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_never_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    payloads: dict[str, Any] = {
        "posix.system": Evil(os.system, f"touch {mark}"),
        "open": Evil(open, str(mark), "w"),
        "eval": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": Evil(getattr, mark, "touch"),
    }
    for name, payload in payloads.items():
        path = save(tmp_path / "mini-imagenet-cache-train.pkl", {**content(), "x": payload}, protocol)
        with pytest.raises(InputError, match=r"do not trust this file") as caught:
            MiniImageNet(root=str(tmp_path)).load("train")
        assert name in str(caught.value)
        assert str(path) in str(caught.value)
        assert not mark.exists()
    pickle.loads(save(tmp_path / "a.pkl", payloads["open"], protocol).read_bytes())
    assert mark.exists(), "the payload works where it is let"


@pytest.mark.parametrize(
    "value",
    [
        np.array([Evil(print), 1], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.ma.masked_array([1]),
        collections.Counter("aab"),
        types.SimpleNamespace(a=1),
        np.datetime64("2020-01-01"),
        slice(3),
        range(3),
        print,
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match=r"only numpy arrays|not a readable pickle"):
        load_arrays(save(tmp_path / "a.pkl", value))


def _array_opcodes(dtype: bytes, state: bytes) -> bytes:
    """An array whose dtype's state is forged."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'"
        + dtype + b"'\nI0\nI1\ntR" + state + b"bI00\nS'AAAAAAAA'\ntb."
    )  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"not a pickle at all",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x",  # bytes of a terabyte
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x",  # a bytearray of a terabyte
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x",  # text of more
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",  # a frame of a terabyte
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x",  # a number of two gigabytes
        b"cnumpy\nndarray\n(I9999999999\ntR.",  # an array of ten gigabytes, by its shape
        b"cnumpy\nndarray\n(I9999999999\nt\x81.",
        b"cbuiltins\nbytearray\n(I9999999999\ntR.",
        b"cbuiltins\nlist\n(cbuiltins\nset\n(tRtR0c" + b"x" * 3_000_000,
        _array_opcodes(b"O8", b"(I3\nS'|'\nNNNI-1\nI-1\nI0\nt"),  # pointers
        _array_opcodes(b"u8", b"(I3\nS'<'\n(S'O8'\nI1\ntNNI-1\nI-1\nI0\nt"),
        b"\x80\x02\x82\x01.",  # the extension registry
        b"Psomewhere\n.",
        b"(ios\nsystem\n.",
        b"((cos\nsystem\no.",
    ],
)
def test_damaged_and_hostile_pickles(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.pkl"):
        load_arrays(tmp_path / "a.pkl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_memory_does_not_follow_what_a_pickle_claims(tmp_path: Path) -> None:
    """A memo slot numbered two billion, lists of lists that double, one list copied again and again."""
    tracemalloc.start()
    (tmp_path / "memo.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")
    assert load_arrays(tmp_path / "memo.pkl") is None
    nested: list[Any] = []
    for _ in range(14):
        nested = [nested] * 20
    load_arrays(save(tmp_path / "nested.pkl", nested))
    for _ in range(100):
        nested = [nested]
    with pytest.raises(InputError, match="deep"):
        load_arrays(save(tmp_path / "deep.pkl", nested))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="deep"):
        load_arrays(save(tmp_path / "loop.pkl", loop))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_copies_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("episodes.untrusted.pickles.MAX_ITEMS", 50)
    (tmp_path / "a.pkl").write_bytes(b"](I1\nI2\nI3\nep0\n0" + b"cbuiltins\nlist\n(g0\ntR0" * 20 + b"g0\n.")
    with pytest.raises(InputError, match="copies of more than 50"):
        load_arrays(tmp_path / "a.pkl")


@pytest.mark.parametrize("keep", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_truncated_pickle(tmp_path: Path, keep: float, protocol: int) -> None:
    path = save(tmp_path / "mini-imagenet-cache-test.pkl", content("test"), protocol)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=r"cut short|not a readable pickle"):
        MiniImageNet(root=str(tmp_path)).load("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_data": None}, "its image_data is a NoneType"),
        ({"image_data": np.zeros((12, 84, 84), np.uint8)}, r"it has uint8 \[12, 84, 84\]"),
        ({"image_data": np.zeros((12, 84, 84, 3))}, "it has float64"),
        ({"class_dict": {}}, "not a dict with classes"),
        ({"class_dict": {"cat": [1]}}, "not in Ravi"),
        ({"class_dict": {"n01532829": [0, 12]}}, "outside 0 to 11"),
        ({"class_dict": {"n01532829": [-1]}}, "outside 0 to 11"),
        ({"class_dict": {"n01532829": "abc"}}, "list of picture numbers"),
        ({"class_dict": {"n01532829": []}}, "list of picture numbers"),
        ({"class_dict": {"n01532829": [1], "n01558993": [1]}}, "lists a picture twice"),
    ],
)
def test_pickles_of_another_shape(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save(tmp_path / "mini-imagenet-cache-train.pkl", {**content(), **change})
    with pytest.raises(InputError, match=message):
        MiniImageNet(root=str(tmp_path)).load("train")


def test_fetch_without_learn2learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "learn2learn", None)
    monkeypatch.setitem(sys.modules, "learn2learn.data.utils", None)
    with pytest.raises(InputError, match=r"\./scripts/install\.sh"):
        MiniImageNet().fetch(tmp_path)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], list[str]]:
    """Files that a mirror sends of each split, and requests that it got; a split has 3 classes of 4 pictures here."""
    ids = {split: tuple(ravi_split(split)[:3]) for split in ("train", "validation", "test")}
    sent: dict[str, object] = {split: content(split) for split in ids}
    asked: list[str] = []

    def download(link: str, target: str) -> None:
        asked.append(link)
        save(Path(target), sent[next(s for s in ids if f"-{s}.pkl" in link)])

    fake = types.ModuleType("learn2learn.data.utils")
    fake.download_file = download  # type: ignore[attr-defined]
    for name in ("learn2learn", "learn2learn.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "learn2learn.data.utils", fake)
    monkeypatch.setattr("episodes.datasets.miniimagenet_split.PER_CLASS", 4)
    monkeypatch.setattr("episodes.datasets.miniimagenet_split.ravi_split", ids.__getitem__)
    return sent, asked


def test_fetch_keeps_only_what_it_could_read(tmp_path: Path, mirror: tuple[dict[str, object], list[str]]) -> None:
    sent, asked = mirror
    sent["test"] = b"<html>not found</html>"
    with pytest.raises(InputError, match="test split could not be fetched"):
        MiniImageNet().fetch(tmp_path)
    names = [f"mini-imagenet-cache-{split}.pkl" for split in ("train", "validation")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert MiniImageNet(root=str(tmp_path)).load("train").num_classes == 3
    asked.clear()
    with pytest.raises(InputError):
        MiniImageNet().fetch(tmp_path)
    assert all("test" in link for link in asked), "what is there is not fetched again"


def _fewer(sent: dict[str, Any]) -> None:
    sent["class_dict"].pop(max(sent["class_dict"]))


def _short(sent: dict[str, Any]) -> None:
    sent["class_dict"][max(sent["class_dict"])].pop()


def _small(sent: dict[str, Any]) -> None:
    sent["image_data"] = sent["image_data"][:, :32, :32].copy()


def _same(sent: dict[str, Any]) -> None:
    sent["image_data"][4:8] = sent["image_data"][4]


def _blank(sent: dict[str, Any]) -> None:
    sent["image_data"][9] = 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_fewer, "lacks 1 of the 3 classes"),
        (_short, "has 3 pictures of n.* instead of 4"),
        (_small, r"shape \[32, 32, 3\] instead of \[84, 84, 3\]"),
        (_same, "has 1 different pictures of 4"),
        (_blank, "picture 9 is of one colour"),
    ],
)
def test_fetch_checks_the_content(
    change: Any, message: str, tmp_path: Path, mirror: tuple[dict[str, Any], list[str]]
) -> None:
    sent, _ = mirror
    change(sent["validation"])
    with pytest.raises(InputError, match=f"(?s)validation split could not be fetched.*{message}"):
        MiniImageNet().fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mini-imagenet-cache-train.pkl"]


def test_fetch_takes_what_was_published(tmp_path: Path, mirror: tuple[dict[str, object], list[str]]) -> None:
    MiniImageNet().fetch(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_real_data(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = real_data / "miniimagenet"
    for file, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        labels = {row["label"] for row in csv.DictReader((root / f"{file}.csv").open())}
        assert labels == set(ravi_split(split))
    dataset = MiniImageNet(root=str(root))
    report = check_dataset(dataset)
    assert [(s.classes, s.shape) for s in report.splits] == [(n, (3, 84, 84)) for n in (64, 16, 20)]
    assert not any(place.split == "test" for group in report.duplicates for place in group)
    # The whole set holds 8 pairs, 6 across train and validation; of the first 100 of each class, one is left.
    pairs = {frozenset(place.class_name for place in group) for group in report.duplicates}
    assert frozenset({"n02108551", "n02111277"}) in pairs
    whole = all(split.fewest == 600 for split in report.splits)
    assert (len(report.duplicates), len(report.crossing)) == ((8, 6) if whole else (1, 0))
    monkeypatch.setattr(Source, "read", lambda *_: pytest.fail("a cached split was decoded again"))
    bank = dataset.load("train")
    assert 90 < bank.images.float().mean() < 140
