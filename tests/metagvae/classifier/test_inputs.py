"""Inputs of the classifier: one picture is one answer, one scale is one scale, the same file is the same."""

from __future__ import annotations

import copy
import io
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from episodes import InputError
from metagvae import FewShotClassifier
from tests.support.strokes import Array, strokes


@pytest.fixture(scope="module")
def drawn() -> tuple[Array, Array, Array, Array]:
    return (*strokes(5, 0), *strokes(5, 1))


@pytest.fixture(scope="module")
def fitted(drawn: tuple[Array, ...]) -> FewShotClassifier:
    classifier = FewShotClassifier(device="cpu").fit(drawn[0], drawn[1])
    assert classifier.score(drawn[2], drawn[3]) > 0.9
    return classifier


def file(image: Image.Image, kind: str = "PNG", **save: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


# --- one scale


@pytest.mark.parametrize("white", [15.0, 16.0, 200.0, 255.0, 1023.0, 4095.0, 65535.0])
def test_floats_of_one_scale_then_of_another(drawn: tuple[Array, ...], fitted: FewShotClassifier, white: float) -> None:
    X, y, Xq, yq = drawn
    classifier = FewShotClassifier(device="cpu").fit(X * (white / 255), y)
    assert classifier.score(Xq * (white / 255), yq) == fitted.score(Xq, yq)
    assert classifier.score(Xq, yq) == fitted.score(Xq, yq)  # 8 bits say themselves what is white
    for wrong in (Xq / 255, (Xq > 0).astype(np.int64), Xq[:1] / 255, list(Xq / 255), Xq * (white * 16 / 255)):
        with pytest.raises(InputError, match=r"scale"):
            classifier.predict(wrong)
    with pytest.raises(InputError, match="picture 1 holds numbers in"):
        classifier.predict(np.stack([Xq[0] * (white / 255), np.linspace(0, 1, 48 * 48).reshape(48, 48)]))


def test_signed_scales_and_those_of_zero_to_one(drawn: tuple[Array, ...], fitted: FewShotClassifier) -> None:
    X, y, Xq, yq = drawn
    signed = FewShotClassifier(device="cpu").fit(X / 127.5 - 1, y)
    assert signed.score(Xq / 127.5 - 1, yq) == fitted.score(Xq, yq)
    standard = FewShotClassifier(device="cpu").fit((X / 255 - 0.1307) / 0.3081, y)
    soft = np.stack([np.asarray(Image.fromarray(x).resize((32, 32))) for x in Xq]) / 255
    for classifier in (signed, standard):
        with pytest.raises(InputError, match="those seen first were in"):
            classifier.predict(soft)
    eight = FewShotClassifier(device="cpu").fit(X, y)
    for wrong in (Xq.astype(float), Xq.astype(np.int64), Xq.astype(np.uint16) * 257):
        with pytest.raises(InputError, match=r"those seen first were 8-bit .* value_range"):
            eight.predict(wrong)
    assert eight.score(Xq / 255, yq) == fitted.score(Xq, yq)
    unit = FewShotClassifier(device="cpu").fit(X / 255, y)
    for wrong in (Xq / 127.5 - 1, (Xq / 255 - 0.1307) / 0.3081, Xq.astype(float), Xq.astype(np.int32)):
        with pytest.raises(InputError, match="those seen first were in"):
            unit.predict(wrong)


def test_a_list_may_mix_what_knows_its_scale_with_numbers(drawn: tuple[Array, ...], fitted: FewShotClassifier) -> None:
    X, y, Xq, _ = drawn
    ways = [
        lambda x: x,
        lambda x: Image.fromarray(x),
        lambda x: x.astype(np.float32),
        lambda x: torch.from_numpy(x).double(),
        lambda x: file(Image.fromarray(x)),
        lambda x: x > 127,
        lambda x: Image.fromarray(x).convert("1"),
        lambda x: np.repeat(x[..., None], 3, -1).astype(float),
    ]
    mixed = FewShotClassifier(device="cpu").fit([ways[i % len(ways)](x) for i, x in enumerate(X)], y)
    np.testing.assert_allclose(mixed.support_, fitted.support_, atol=1e-4)
    query = [ways[i % len(ways)](x) for i, x in enumerate(Xq)]
    np.testing.assert_allclose(mixed.predict_proba(query), mixed.predict_proba(Xq), atol=1e-6)
    with pytest.raises(InputError, match="picture 3 holds numbers in"):
        FewShotClassifier(device="cpu").fit([x / 255.1 if i == 3 else x.astype(float) for i, x in enumerate(X)], y)


@pytest.mark.parametrize("white", [1, 15, 16, 31])
def test_eight_bit_arrays_and_files_of_few_levels_are_not_black(drawn: tuple[Array, ...], white: int) -> None:
    """Masks of 0 and 1, and digits of 0 to 16, are often kept in 8 bits."""
    X, y, Xq, yq = (part // 255 * white if part.ndim == 3 else part for part in drawn)
    X, Xq = X.astype(np.uint8), Xq.astype(np.uint8)
    with pytest.warns(UserWarning, match=f"{white} is taken for white"):
        classifier = FewShotClassifier(device="cpu").fit(X, y)
    assert classifier.score(Xq, yq) > 0.9
    assert classifier.score([file(Image.fromarray(x)) for x in Xq], yq) > 0.9
    with pytest.raises(InputError, match="up to 255"):
        classifier.predict(drawn[2])
    given = FewShotClassifier(value_range=(0, white), device="cpu").fit(X, y)
    np.testing.assert_allclose(given.support_, classifier.support_, atol=1e-5)


@pytest.mark.parametrize("white", [1, 15, 31])
def test_eight_bits_of_fewer_levels_than_those_fitted_on_are_not_black(drawn: tuple[Array, ...], white: int) -> None:
    X, y, Xq, _ = drawn
    dim = (Xq // 255 * white).astype(np.uint8)
    for fitted_on in (X, X / 255, X.astype(float)):
        classifier = FewShotClassifier(device="cpu").fit(fitted_on, y)
        for asked in (dim, [file(Image.fromarray(picture)) for picture in dim]):
            with pytest.raises(InputError, match=f"number above {white}, and 255 is white .* all would be black"):
                classifier.predict(asked)
        assert classifier.predict([file(Image.fromarray(dim[0]))]).shape == (1,)  # one dark photograph is one
        assert classifier.predict(np.concatenate([Xq[:1], dim[:1]])).shape == (2,)


def test_features_that_are_not_finite_are_refused(drawn: tuple[Array, ...]) -> None:
    classifier = FewShotClassifier(device="cpu").fit(drawn[0], drawn[1])
    classifier.encoder_ = copy.deepcopy(classifier.encoder_)
    with torch.no_grad():
        next(classifier.encoder_.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="features that are not finite"):
        classifier.predict(drawn[2])


def test_rgba_of_any_type_is_laid_over_white(drawn: tuple[Array, ...]) -> None:
    """The oracle is Pillow's own composition."""
    X, y, Xq, _ = drawn

    def layers(images: Array) -> Array:  # dark strokes whose paper is transparent, half and whole
        alpha = np.where(images > 0, 255, np.arange(48, dtype=np.uint8) // 24 * 128)
        return np.stack([255 - images] * 3 + [alpha.astype(np.uint8)], -1)

    def over_white(rgba: Array) -> Array:
        return np.asarray(
            Image.alpha_composite(Image.new("RGBA", (48, 48), "white"), Image.fromarray(rgba)).convert("L")
        )

    support, query = layers(X), layers(Xq)
    flat = FewShotClassifier(device="cpu").fit(np.stack([over_white(x) for x in support]), y)
    expected = flat.predict_proba(np.stack([over_white(x) for x in query]))
    alpha_unit = query.astype(float)
    alpha_unit[..., 3] /= 255
    for fit, ask in (
        (support, query),
        (support.astype(float), query.astype(float)),
        (support / 255, query / 255),
        (support.astype(np.float32), alpha_unit),
        (support.astype(np.uint16) * 257, query.astype(np.uint16) * 257),
        (torch.from_numpy(support).permute(0, 3, 1, 2), torch.from_numpy(query).permute(0, 3, 1, 2)),
        (list(support), list(query)),
        ([Image.fromarray(x) for x in support], [file(Image.fromarray(x)) for x in query]),
    ):
        classifier = FewShotClassifier(device="cpu").fit(fit, y)
        np.testing.assert_allclose(classifier.predict_proba(ask), expected, atol=0.02)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_files_of_sixteen_bits_are_arrays_of_their_numbers(drawn: tuple[Array, ...], bits: int) -> None:
    X, y, Xq, yq = (part.astype(np.int64) * (2**bits - 1) // 255 if part.ndim == 3 else part for part in drawn)
    X, Xq = X.astype(np.uint16), Xq.astype(np.uint16)
    arrays = FewShotClassifier(device="cpu").fit(X, y)
    for mode, kind in (("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF"), ("F", "TIFF")):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        files = [file(Image.fromarray(x.astype(dtype)), kind) for x in X]
        classifier = FewShotClassifier(device="cpu").fit(files, y)
        np.testing.assert_allclose(classifier.support_, arrays.support_, atol=1e-5)
        assert classifier.score(Xq, yq) > 0.9
    mixed = FewShotClassifier(device="cpu").fit(drawn[0], y)  # 8 bits first: files of 16 by their own range
    if bits in (12, 16):
        assert mixed.score([file(Image.fromarray(x)) for x in Xq], yq) > 0.9


def test_value_ranges_that_are_none(drawn: tuple[Array, ...]) -> None:
    for wrong in ((255, 0), (0,), (0, 1, 2), "01", (0, float("nan")), (0, "1"), (0, 1e39), 255):
        with pytest.raises(InputError, match="numbers of black and of white"):
            FewShotClassifier(value_range=wrong, device="cpu").fit(drawn[0], drawn[1])  # type: ignore[arg-type]


# --- one picture


@pytest.mark.parametrize(
    ("fit", "asked"),
    [
        (lambda x: x, lambda x: x[0]),
        (lambda x: x, lambda x: torch.from_numpy(x[0])),
        (lambda x: x, lambda x: x[0].tolist()),
        (lambda x: x, lambda x: list(x[0])),
        (lambda x: x, lambda x: x[0][..., None]),
        (lambda x: np.stack([x] * 3, -1), lambda x: np.stack([x[0]] * 3, -1)),
        (lambda x: np.stack([x] * 3, -1), lambda x: np.stack([*[x[0]] * 3, x[0] * 0 + 255], -1) / 255),
        (lambda x: torch.from_numpy(np.stack([x] * 3, 1)), lambda x: torch.from_numpy(np.stack([x[0]] * 3))),
        (lambda x: np.stack([x] * 3, 1), lambda x: np.stack([x[0]] * 3)),
        (lambda x: list(np.stack([x] * 3, 1)), lambda x: np.stack([x[0]] * 3)),
        (lambda x: [Image.fromarray(i) for i in x], lambda x: x[0]),
        (lambda x: [Image.fromarray(i) for i in x], lambda x: torch.from_numpy(np.stack([x[0]] * 3))),
        (lambda x: [Image.fromarray(i) for i in x], lambda x: np.stack([x[0]] * 3, -1)),
        (lambda x: x, lambda x: Image.fromarray(x[0])),
        (lambda x: x, lambda x: file(Image.fromarray(x[0]))),
        (lambda x: x, lambda x: io.BytesIO(file(Image.fromarray(x[0])))),
        (lambda x: x, lambda x: "one.png"),
        (lambda x: x, lambda x: Path("one.png")),
    ],
)
def test_one_picture_is_never_taken_for_many(drawn: tuple[Array, ...], fit: Any, asked: Any) -> None:
    classifier = FewShotClassifier(device="cpu").fit(fit(drawn[0]), drawn[1])
    for method in (classifier.predict, classifier.predict_proba, classifier.novelty, classifier.distances):
        with pytest.raises(InputError, match=r"one picture|give a list"):
            method(asked(drawn[2]))
    if not isinstance(asked(drawn[2]), str | Path | list):
        assert classifier.predict([asked(drawn[2])]) == [drawn[3][0]]


def test_one_picture_at_fit_is_refused(drawn: tuple[Array, ...]) -> None:
    for one in (np.stack([drawn[0][0]] * 3, -1), drawn[0][0][..., None]):
        with pytest.raises(InputError, match="one picture"):
            FewShotClassifier(device="cpu").fit(one, range(48))


def test_several_are_still_several(drawn: tuple[Array, ...], fitted: FewShotClassifier) -> None:
    Xq = drawn[2]
    assert len(fitted.predict(torch.from_numpy(Xq[:3]))) == 3
    assert len(fitted.predict(Xq[:4])) == 4
    assert len(fitted.predict(Xq[:48].reshape(-1, 48 * 48))) == 30
    small = FewShotClassifier(device="cpu").fit(drawn[0][:, ::6, ::6], drawn[1])  # 8 x 8, and 64 rows of 64
    assert len(small.predict(np.repeat(Xq[:, ::6, ::6], 3, 0)[:64].reshape(64, 64))) == 64
    rows = FewShotClassifier(device="cpu").fit(drawn[0].reshape(30, -1), drawn[1])
    assert len(rows.predict(Xq.reshape(30, -1))) == 30


# --- the same file


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed_whatever_brings_it(drawn: tuple[Array, ...], tmp_path: Path, orientation: int) -> None:
    X, y, Xq, _ = drawn
    turned = Image.fromarray(Xq[7])
    exif = turned.getexif()
    exif[0x0112] = orientation
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # the transpositions that undo each
    stored = turned if back is None else turned.transpose(Image.Transpose(back))
    path = tmp_path / "x.png"
    path.write_bytes(file(stored, exif=exif))
    classifier = FewShotClassifier(device="cpu").fit(X, y)
    expected = classifier.predict_proba(Xq[7:8])
    for item in (path, str(path), Image.open(path), path.read_bytes(), bytearray(path.read_bytes()), path.open("rb")):
        np.testing.assert_allclose(classifier.predict_proba([item]), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_colour_key_is_white_whatever_brings_it(drawn: tuple[Array, ...], tmp_path: Path, mode: str) -> None:
    """Dark strokes on paper that is transparent: the same picture as RGBA is the oracle."""
    X, y, Xq, _ = drawn
    classifier = FewShotClassifier(device="cpu").fit(255 - X, y)
    expected = classifier.predict_proba(255 - Xq[:1])
    paper = np.where(Xq[0] > 0, 0, 255).astype(np.uint8)
    picture = Image.fromarray(paper).convert(mode)
    key: Any = (255, 255, 255) if mode == "RGB" else 1 if mode == "1" else picture.getpixel((0, 0))
    path = tmp_path / "x.png"
    path.write_bytes(file(picture, transparency=key))
    assert Image.open(path).info["transparency"] is not None
    for item in (path, Image.open(path), path.read_bytes(), Image.open(path).convert("RGBA")):
        np.testing.assert_allclose(classifier.predict_proba([item]), expected, atol=1e-4)


# --- types of input


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.uint32, torch.int64, torch.float16,
              torch.bfloat16, torch.float64]
)  # fmt: skip
def test_tensors_of_every_type(drawn: tuple[Array, ...], fitted: FewShotClassifier, dtype: torch.dtype) -> None:
    X, y, Xq, _ = drawn
    classifier = FewShotClassifier(device="cpu").fit(torch.from_numpy(X).to(dtype), y)
    np.testing.assert_allclose(classifier.support_, fitted.support_, atol=1e-4)
    rows = FewShotClassifier(device="cpu").fit(torch.from_numpy(X).to(dtype).flatten(1), y)
    np.testing.assert_allclose(rows.support_, fitted.support_, atol=1e-4)
    assert (classifier.predict(torch.from_numpy(Xq).to(dtype)) == fitted.predict(Xq)).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(">u2"),
        lambda x: x.astype(object),
        lambda x: x.astype(np.longdouble),
        lambda x: x.tolist(),
        lambda x: x[:, ::-1, ::-1][:, ::-1, ::-1],
        lambda x: torch.from_numpy(x).float().requires_grad_(),
        lambda x: torch.quantize_per_tensor(torch.from_numpy(x).float(), 1.0, 0, torch.quint8),
        lambda x: np.ma.array(x),
        lambda x: tuple(x),
        lambda x: [memoryview(file(Image.fromarray(i))) for i in x],
        lambda x: [io.BytesIO(file(Image.fromarray(i), "BMP")) for i in x],
    ],
)
def test_arrays_of_odd_types(drawn: tuple[Array, ...], fitted: FewShotClassifier, change: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*quantize")
        classifier = FewShotClassifier(device="cpu").fit(change(drawn[0]), drawn[1])
    np.testing.assert_allclose(classifier.support_, fitted.support_, atol=1e-4)


def test_what_is_no_picture_is_one_sentence(fitted: FewShotClassifier, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    masked = np.ma.array(np.zeros((1, 9, 9)), mask=np.eye(9)[None])
    for wrong, message in (
        ({"a": 1}, "received a dict"),
        ({1, 2}, "received a set"),
        (iter([]), "received a list_iterator"),
        (torch.zeros(2, 9, 9).to_sparse(), "to_dense"),
        ([torch.zeros(9, 9).to_sparse()], "to_dense"),
        (torch.nested.nested_tensor([torch.zeros(3, 3)]), "to_dense"),
        (torch.zeros(2, 9, 9, device="meta"), "meta device"),
        (masked, "masked"),
        ([b"no picture"], "picture 0 is not a readable picture"),
        ([b""], "picture 0 is not a readable picture"),
        ([b"/etc/passwd"], "picture 0 is not a readable picture"),
        (["a\0b"], "cannot be read"),
        (["~nobody-of-that-name/x.png"], "cannot be found"),
        ([pipe], "no regular file"),
        ([tmp_path], "no regular file"),
        ([io.StringIO("x")], "file of text"),
        ([{"a": 1}], "should be a path"),
        ([np.zeros((0, 9))], "at least one pixel"),
        (np.zeros((2, 0, 9)), "at least one pixel"),
        (np.array(7), "single number"),
        (torch.tensor(7.0), "single number"),
        ([[1, 2], [1]], "not of one length"),
        (np.zeros((2, 9, 9), dtype="datetime64[s]"), "hold numbers"),
        (np.full((2, 9, 9), 1e300), "NaN or infinity"),
        (np.array([["a.png", "b.png"]]), "in one row"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.predict(wrong)
