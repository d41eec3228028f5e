"""Glyphs: counts, determinism, splits by script, no look-alikes, legible pictures, errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from episodes.bank import ImageBank
from episodes.datasets import make_dataset
from episodes.datasets.glyph_shapes import FACES, alike, thin
from episodes.datasets.glyphs import LETTERS, Glyphs, letter_table, letters_of
from episodes.errors import InputError

SPLIT_OF = {code: LETTERS[script][0] for script in LETTERS for code in letters_of(script)}
TOO_ALIKE = 0.95  # of the correlation below: A and Alpha have 1.0, O and Tifinagh ⵔ 0.99


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ImageBank]]:
    """All three splits, built cold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAGVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield {split: Glyphs().load(split) for split in ("train", "validation", "test")}


def test_counts(banks: dict[str, ImageBank]) -> None:
    classes = {split: bank.num_classes for split, bank in banks.items()}
    assert sum(classes.values()) >= 1000
    assert classes["train"] >= 600
    assert min(classes["validation"], classes["test"]) >= 100
    for bank in banks.values():
        assert bank.counts.unique().tolist() == [20]
        assert bank.image_shape == (1, 28, 28)
        assert bank.polarity == "ink"
        assert len(set(bank.class_names)) == bank.num_classes


def test_scripts_are_disjoint_and_named_right(banks: dict[str, ImageBank]) -> None:
    names = {split: set(bank.attributes["script"].names) for split, bank in banks.items()}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == len(LETTERS)
    for bank in banks.values():
        script = bank.attributes["script"]
        assert script.values.bincount().min() > 0
        for name, value in zip(bank.class_names, script.values.tolist(), strict=True):
            prefix, _, code = name.partition("/U+")
            letter = chr(int(code, 16))
            assert prefix == script.names[value]
            assert unicodedata.name(letter).lower().startswith(prefix)
            assert unicodedata.category(letter).startswith("L")
    test = banks["test"].attributes["script"]
    assert (test.values.bincount() >= 20).sum() >= 3


def test_pictures_are_legible(banks: dict[str, ImageBank]) -> None:
    for bank in banks.values():
        images = bank.images[:, 0].float()
        assert images.amax((1, 2)).min() > 150
        assert 15 < images.mean() < 26  # Omniglot's is 21
        edges = torch.stack((images[:, 0], images[:, -1], images[..., 0], images[..., -1]), 1)
        assert (edges.amax((1, 2)) > 128).float().mean() < 0.002  # nothing is cut off
    # pictures of a class differ, and no picture occurs twice
    assert len(banks["test"].images.flatten(1).unique(dim=0)) == len(banks["test"])


def test_pixels_alone_are_neither_enough_nor_useless(banks: dict[str, ImageBank]) -> None:
    """5-way 1-shot by the nearest support picture; Omniglot's error is about 0.55."""
    bank = banks["test"]
    flat = bank.images.flatten(1).float().view(bank.num_classes, 20, -1)
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for _ in range(400):
        classes = torch.randperm(bank.num_classes, generator=generator)[:5]
        drawings = torch.randperm(20, generator=generator)[:4]
        tasks.append(flat[classes[:, None], drawings])
    stack = torch.stack(tasks)  # [tasks, way, 1 + 3, pixels]
    nearest = torch.cdist(stack[:, :, 1:].flatten(1, 2), stack[:, :, 0]).argmin(2)
    wrong = (nearest != torch.arange(5).repeat_interleave(3)).float().mean()
    assert 0.3 < wrong < 0.6


def test_a_drawing_depends_on_seed_and_letter_alone(banks: dict[str, ImageBank]) -> None:
    bank = banks["test"]
    names = [bank.class_names[c] for c in (0, 50, bank.num_classes - 1)]
    codes = [int(name.partition("+")[2], 16) for name in names]
    again = Glyphs().drawings(codes[::-1])[::-1]  # other company, other order
    for name, images in zip(names, again, strict=True):
        c = bank.class_names.index(name)
        assert torch.equal(images, bank.images[20 * c : 20 * c + 20])
    other = Glyphs(seed=1).drawings(codes)
    for first, second in zip(again, other, strict=True):
        assert (first != second).flatten(1).any(1).all()


def test_the_cache_gives_the_same_bank(banks: dict[str, ImageBank], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("built again, not read from the cache")

    monkeypatch.setattr(Glyphs, "_build", fail)
    with pytest.raises(AssertionError):  # another seed is another bank
        Glyphs(seed=7).load("test")
    again = Glyphs().load("test")
    assert torch.equal(again.images, banks["test"].images)
    assert again.fingerprint == banks["test"].fingerprint


def _picture(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    """The filled letter stretched to one box (bars stay bars), blurred, mean 0, length 1: shares no code."""
    page = Image.new("L", (300, 300))
    ImageDraw.Draw(page).text((80, 60), letter, font=font, fill=255)
    glyph = page.crop(page.getbbox())
    longer = max(glyph.size)
    width, height = (max(10, round(20 * min(1.0, 2 * side / longer))) for side in glyph.size)
    square = Image.new("L", (28, 28))
    resized = glyph.resize((width, height), Image.Resampling.BOX)
    square.paste(resized, ((28 - width) // 2, (28 - height) // 2))
    values = np.asarray(square.filter(ImageFilter.GaussianBlur(1.0)), dtype=np.float64).ravel()
    values -= values.mean()
    return values / np.linalg.norm(values)


def _likeness(letters: list[str]) -> np.ndarray:
    """float64 ``[letters, letters]``: the best correlation over all pairs of faces."""
    pictures, owners = [], []
    for face in FACES:
        path = Path(get_data_path()) / "fonts" / "ttf" / face
        font = ImageFont.truetype(str(path), 100, layout_engine=ImageFont.Layout.BASIC)
        known = FT2Font(str(path)).get_charmap()
        for number, letter in enumerate(letters):
            if ord(letter) in known:
                pictures.append(_picture(font, letter))
                owners.append(number)
    stack = np.stack(pictures)
    best = np.full((len(letters), len(letters)), -1.0)
    np.maximum.at(best, (np.array(owners)[:, None], np.array(owners)[None]), stack @ stack.T)
    return best


def test_no_look_alikes_across_splits() -> None:
    controls = _likeness(["A", "Α", "А", "O", "Ο", "О", "ⵔ", "B", "L"])
    for same in ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (3, 6)):
        assert controls[same] > TOO_ALIKE
    assert controls[7, 8] < 0.7  # the comparison can tell letters apart
    letters = sorted(map(chr, SPLIT_OF))
    likeness = _likeness(letters)
    split = np.array([SPLIT_OF[ord(letter)] for letter in letters])
    likeness[split[:, None] == split[None]] = -1
    first, second = np.unravel_index(likeness.argmax(), likeness.shape)
    assert likeness[first, second] < TOO_ALIKE, f"{letters[first]} and {letters[second]} are in two splits"


@pytest.mark.parametrize("same", ["AΑА𐌀Ꭺꓮ", "OoΟοОоⵔ", "XxΧХхⵝ", "EΕЕⴹ", "SsЅѕՏ", "ІIΙ𐌉"])
def test_one_owner_for_shared_shapes(same: str) -> None:
    assert sum(ord(letter) in SPLIT_OF for letter in same) <= 1


@pytest.mark.slow  # 8 s alone, 20 s on a busy machine
def test_the_letter_table_is_what_the_rule_gives() -> None:
    """The table in the file was not edited by hand: the selection run on these fonts writes it again."""
    table = letter_table()
    for script, (split, letters) in LETTERS.items():
        # another version of the fonts or of FreeType may move a letter or two past the threshold
        differing = set(letters.split()) ^ set(table[script][1].split())
        assert table[script][0] == split
        assert len(differing) <= 4, f"{script}: {sorted(differing)}"


def test_thin_leaves_a_line_and_keeps_pieces_apart() -> None:
    ink = np.zeros((1, 32, 32), dtype=bool)
    ink[0, 4:28, 4:9] = True
    ink[0, 4:28, 20:25] = True
    line = thin(ink)[0]
    assert line.sum(1).max() == 2
    assert 18 <= line[:, :16].sum() <= 24
    assert 18 <= line[:, 16:].sum() <= 24


def test_alike_by_hand() -> None:
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    fields = torch.stack([(x - at).abs() for at in (10, 11, 18)] + [(y - 10).abs()])
    got = alike(fields, torch.arange(4), 1.5, 0.1)
    want = torch.eye(4, dtype=torch.bool)
    want[0, 1] = want[1, 0] = True
    assert torch.equal(got, want)


def test_other_sizes_keep_the_look() -> None:
    code = ord("ა")
    (small,), (large,) = Glyphs(size=28).drawings([code]), Glyphs(size=56).drawings([code])
    assert large.shape == (20, 1, 56, 56)
    half = torch.nn.functional.avg_pool2d(large.float(), 2)
    assert (half - small.float()).abs().mean() < 4


def test_errors() -> None:
    with pytest.raises(InputError, match="seed"):
        make_dataset("glyphs", seed=-1)
    with pytest.raises(InputError, match="lack"):
        Glyphs().drawings([0x4E00])
    with pytest.raises(InputError, match="unknown split"):
        Glyphs().load("tests")
