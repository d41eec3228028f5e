"""Labels keep their type and stay apart; what fails leaves the classifier, and what is the caller's, as it was."""

from __future__ import annotations

import copy
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metagvae
from episodes import InputError
from metagvae import FewShotClassifier
from metagvae.classifier.estimator import DEFAULT_ENCODER
from metagvae.encoders.encoder import Encoder, EncoderConfig
from tests.support.strokes import Array, strokes


@pytest.fixture(scope="module")
def drawn() -> tuple[Array, Array, Array, Array]:
    return (*strokes(4, 0), *strokes(4, 1))


def stranger() -> Array:
    """Noise, unlike any stroke."""
    return np.random.default_rng(0).integers(0, 255, (2, 48, 48), dtype=np.uint8)


# --- types


@pytest.mark.parametrize("none", ["none", -1, 2.5, float("nan")])
@pytest.mark.parametrize(
    "names",
    [
        np.arange(6),
        np.arange(6, dtype=np.int8),
        np.arange(6, dtype=np.uint64) + 2**63,
        np.array(["a", "b", "c", "d", "e", "f"]),
        np.array(["a", "b", "c", "d", "e", "f"], dtype=object),
        [10**18 + n for n in range(6)],
        np.arange(6) / 1.0,
    ],
    ids=["int64", "int8", "uint64", "text", "objects", "list", "float"],
)
def test_answers_equal_the_labels_whatever_none_is(drawn: tuple[Array, ...], names: Any, none: Any) -> None:
    X, y, Xq, yq = drawn
    labels = np.asarray(names)
    true = labels[yq]
    plain = FewShotClassifier(device="cpu").fit(X, labels[y])
    assert plain.classes_.dtype == labels.dtype
    assert plain.predict(Xq).dtype == labels.dtype
    classifier = FewShotClassifier(none_label=none, novelty_threshold=1e9, device="cpu").fit(X, labels[y])
    answers = classifier.predict(Xq)
    assert (answers == plain.predict(Xq)).all()
    assert (answers == true).mean() > 0.9
    assert classifier.score(Xq, true) == plain.score(Xq, true) == (answers == true).mean()
    classifier.set_params(novelty_threshold=-1)
    refused = classifier.predict(Xq)
    assert refused.dtype == answers.dtype
    assert all(a == none or (a != a and none != none) for a in refused.tolist())
    assert classifier.score(Xq, true) == 0
    assert classifier.score(Xq, np.array([none] * len(Xq), dtype=object)) == 1
    assert classifier.score(Xq, [none] * 12 + list(true[12:])) == 0.5


def test_numbers_that_real_numbers_would_merge_stay_apart(drawn: tuple[Array, ...]) -> None:
    X, y, Xq, yq = drawn
    ids = np.array([2**63 + n for n in range(6)], dtype=np.uint64)
    near = np.array([2**53 + n for n in range(6)])
    for first, second in (
        (ids, near),
        (near, ids),
        (ids, ids),
        (near.astype(np.uint64), near),
        (near, [1, 2, 3, 4, 5, 6]),
    ):
        later = np.asarray(second)
        classifier = FewShotClassifier(device="cpu").fit(X[y < 3], first[y[y < 3]])
        classifier.partial_fit(X[y >= 3], later[y[y >= 3]])
        assert classifier.classes_.dtype.kind in "iu"
        assert classifier.classes_.tolist() == sorted({*first[:3].tolist(), *later[3:].tolist()})
        expected = [int((first if label < 3 else later)[label]) for label in yq]
        assert np.mean([a == b for a, b in zip(classifier.predict(Xq).tolist(), expected, strict=True)]) > 0.9


@pytest.mark.parametrize(
    ("known", "added"),
    [
        ([0, 1, 2, 3, 4, 5], ["new"]),
        (["a", "b", "c", "d", "e", "f"], [1]),
        ([0, 1, 2, 3, 4, 5], [1.0]),
        ([0, 1, 2, 3, 4, 5], [True]),
        (np.arange(6, dtype=np.uint64) + 2**63, [-1]),
    ],
)
def test_labels_of_another_type_are_refused_and_nothing_changes(
    drawn: tuple[Array, ...], known: Any, added: Any
) -> None:
    X, y, Xq, _ = drawn
    classifier = FewShotClassifier(device="cpu").fit(X, np.asarray(known)[y])
    before = classifier.predict_proba(Xq)
    for classes in (None, known):
        with pytest.raises(InputError, match=r"one type|as text"):
            classifier.partial_fit(X[:1], added, classes=classes)
    with pytest.raises(InputError, match=r"one type|as text"):
        FewShotClassifier(device="cpu").fit(X[:2], [np.asarray(known)[0].item(), *added])
    assert classifier.classes_.tolist() == np.asarray(known).tolist()
    np.testing.assert_array_equal(classifier.predict_proba(Xq), before)


def test_labels_that_cannot_be_kept_apart_are_refused(drawn: tuple[Array, ...]) -> None:
    X, y, Xq, yq = drawn
    for labels, message in (
        (["a", 1], "one type"),
        ([2**63, -1], "64 bits"),
        ([2**64, 1], "64 bits"),
        (["a", None], "one type"),
        (["a", "a\0"], "zero byte"),
        (["a", float("nan")], "one type"),
        (None, "requires y"),
    ):
        with pytest.raises(ValueError, match=message):
            FewShotClassifier(device="cpu").fit(X[:2], labels)
    for one in (3, 3.0, True):
        with pytest.raises(InputError, match="one of the classes"):
            FewShotClassifier(none_label=one, device="cpu").fit(X, y)
    known = FewShotClassifier(none_label=6, device="cpu").fit(X, y)
    with pytest.raises(InputError, match="one of the classes"):
        known.partial_fit(X[:1], [6])
    with pytest.raises(InputError, match="the type fitted on"):
        known.score(Xq, yq.astype(str))
    assert known.score(Xq, torch.from_numpy(yq)) == known.score(Xq, yq.astype(float)) == known.score(Xq, yq)


def test_labels_as_tensors_and_ranges(drawn: tuple[Array, ...]) -> None:
    X, y, Xq, _ = drawn
    expected = FewShotClassifier(device="cpu").fit(X, y)
    for labels in (torch.from_numpy(y), list(torch.from_numpy(y)), y.tolist(), list(y), y.astype(object)):
        classifier = FewShotClassifier(device="cpu").fit(X, labels)
        assert classifier.classes_.dtype == expected.classes_.dtype
        assert (classifier.predict(Xq) == expected.predict(Xq)).all()
    assert FewShotClassifier(device="cpu").fit(X[::4], range(6)).classes_.tolist() == list(range(6))


# --- all or nothing


def test_a_failed_fit_leaves_what_was(drawn: tuple[Array, ...], tmp_path: Path) -> None:
    X, y, Xq, _ = drawn
    classifier = FewShotClassifier(device="cpu").fit(X, y)
    before, held = classifier.predict_proba(Xq), dict(vars(classifier))
    for pictures, labels, settings in (
        (X, y[:-1], {}),
        (["/nonexistent.png"] * 24, y, {}),
        (np.full((24, 48, 48), np.nan), y, {}),
        (X.reshape(24, -1), ["a", *y[1:]], {}),
        (X, y, {"encoder": "no-such-encoder"}),
        (X, y, {"features": ["colour"]}),
        (X, y, {"value_range": (1, 0)}),
    ):
        with pytest.raises(InputError):
            classifier.set_params(**settings).fit(pictures, labels)
        classifier.set_params(encoder=DEFAULT_ENCODER, features=None, value_range=None)
        assert vars(classifier) == held
        np.testing.assert_array_equal(classifier.predict_proba(Xq), before)
        with pytest.raises(InputError):
            classifier.partial_fit(pictures, labels[:3])
        np.testing.assert_array_equal(classifier.predict_proba(Xq), before)
    fresh = FewShotClassifier(device="cpu")
    with pytest.raises(InputError):
        fresh.fit(X, y[:-1])
    with pytest.raises(Exception, match="not fitted"):
        fresh.predict(Xq)
    with pytest.raises(InputError, match="not fitted"):
        fresh.save(tmp_path / "x")
    assert fresh.partial_fit(X, y).score(X, y) > 0.9


def test_the_callers_encoder_is_left_alone(drawn: tuple[Array, ...]) -> None:
    X, y, Xq, _ = drawn
    encoder = metagvae.load_encoder("guided-protonet-omniglot").train()
    weights, held = copy.deepcopy(encoder.state_dict()), list(encoder.features)
    strides = [p.stride() for p in encoder.parameters()]
    first = FewShotClassifier(encoder, features=["backbone"], device="cpu").fit(X, y)
    expected = first.predict_proba(Xq)
    second = FewShotClassifier(encoder, features=["content"], device="cpu").fit(X, y)
    assert second.support_.shape[1] != first.support_.shape[1]
    np.testing.assert_array_equal(first.predict_proba(Xq), expected)
    assert encoder.training
    assert encoder.features == held
    assert [p.stride() for p in encoder.parameters()] == strides
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, weights[name])
    with torch.no_grad():  # and what becomes of it later changes no classifier
        for parameter in encoder.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(first.predict_proba(Xq), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_encoders_in_another_precision(drawn: tuple[Array, ...], dtype: torch.dtype) -> None:
    X, y, Xq, yq = drawn
    encoder = metagvae.load_encoder("guided-protonet-omniglot").to(dtype)
    classifier = FewShotClassifier(encoder, device="cpu").fit(X, y)
    assert classifier.support_.dtype == np.float32
    assert classifier.score(Xq, yq) > 0.9
    assert next(encoder.parameters()).dtype == dtype


@pytest.mark.parametrize("set_before", ["float64", "float16", "device", "context", "autocast"])
@pytest.mark.parametrize("head", ["prototype", "ridge"])
def test_what_the_caller_set_for_torch_does_not_matter(
    drawn: tuple[Array, ...], tmp_path: Path, set_before: str, head: str
) -> None:
    X, y, Xq, _ = drawn
    expected = FewShotClassifier(head=head, device="cpu").fit(X, y)

    def all_of_it() -> FewShotClassifier:
        made = FewShotClassifier(head=head, device="cpu").fit(X[:12], y[:12]).partial_fit(X[12:], y[12:])
        made.save(tmp_path / "saved")
        again = FewShotClassifier.load(tmp_path / "saved")
        np.testing.assert_allclose(again.predict_proba(Xq), expected.predict_proba(Xq), atol=1e-5)
        np.testing.assert_allclose(made.novelty(Xq), expected.novelty(Xq), rtol=1e-4)
        np.testing.assert_allclose(made.distances(Xq), expected.distances(Xq), rtol=1e-4)
        return made

    if set_before.startswith("float"):
        torch.set_default_dtype(getattr(torch, set_before))
        try:
            all_of_it()
            assert torch.get_default_dtype() == getattr(torch, set_before)
        finally:
            torch.set_default_dtype(torch.float32)
    elif set_before == "device":
        torch.set_default_device("meta")  # stands for any device that is not the CPU
        try:
            made = all_of_it()
        finally:
            torch.set_default_device(None)
        assert all(p.device.type == "cpu" for p in made.encoder_.parameters())
    else:
        with torch.device("meta") if set_before == "context" else torch.autocast("cpu", torch.bfloat16):
            all_of_it()


def test_load_encoder_brings_weights_whatever_the_default_device() -> None:
    with torch.device("meta"):
        encoder = metagvae.load_encoder("guided-vae-omniglot")
    assert {p.device.type for p in encoder.parameters()} == {"cpu"}


# --- on disk


def test_settings_of_numpy_are_saved_and_a_failed_save_leaves_nothing(drawn: tuple[Array, ...], tmp_path: Path) -> None:
    X, y, Xq, _ = drawn
    folder = tmp_path / "saved"
    bad = FewShotClassifier(device="cpu").fit(X, y).set_params(none_label=object())
    with pytest.raises(InputError, match="none_label"):
        bad.save(folder)
    with pytest.raises(InputError, match="Unicode"):
        FewShotClassifier(device="cpu").fit(X[:2], ["a\udcff", "b"]).save(folder)
    with pytest.raises(InputError, match=r"none_label=.*Unicode"):
        FewShotClassifier(device="cpu", none_label="a\udcff").fit(X[:2], ["a", "b"]).save(folder)
    assert list(tmp_path.iterdir()) == []
    good = FewShotClassifier(
        penalty=np.float32(0.5),  # type: ignore[arg-type]
        value_range=np.array([0, 255]),  # type: ignore[arg-type]
        none_label=np.int64(-1),
        novelty_threshold=np.float64(1.5),  # type: ignore[arg-type]
        invert=np.bool_(False),  # type: ignore[arg-type]
        device="cpu",
    ).fit(X, y)
    folder.mkdir()  # an empty folder is taken
    good.save(folder)
    again = FewShotClassifier.load(folder)
    np.testing.assert_array_equal(again.predict(Xq), good.predict(Xq))
    assert again.left_out_error_ == good.left_out_error_
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved"]
    assert folder.stat().st_mode & 0o044


@pytest.mark.parametrize(
    "names",
    [
        np.arange(6, dtype=np.int8),
        np.arange(6, dtype=np.uint64) + 2**63,
        np.array(list("abcdef")),
        np.array(list("abcdef"), dtype=object),
        np.arange(6, dtype=np.float32),
    ],
)
def test_saved_labels_come_back_in_their_type(drawn: tuple[Array, ...], tmp_path: Path, names: Array) -> None:
    X, y, Xq, _ = drawn
    classifier = FewShotClassifier(device="cpu").fit(X, names[y])
    classifier.save(tmp_path / "saved")
    loaded = FewShotClassifier.load(tmp_path / "saved")
    assert loaded.classes_.dtype == names.dtype
    assert (loaded.predict(Xq) == classifier.predict(Xq)).all()
    with pytest.raises(InputError, match="one picture"):
        loaded.predict(Xq[0])
    loaded.partial_fit(X[:1], names[:1])


NO_NUMBERS = ("x", True, [1], {}, float("nan"), float("inf"), -1, 0)


def test_numbers_that_are_none_are_refused(drawn: tuple[Array, ...], tmp_path: Path) -> None:
    """A temperature of text, or NaN, in each place where one stands: no unhandled error, no NaN among the answers."""
    FewShotClassifier(none_label="none", device="cpu").fit(drawn[0], drawn[1].astype(str)).save(tmp_path / "saved")
    path = tmp_path / "saved" / "classifier.json"
    good = json.loads(path.read_text())
    FewShotClassifier.load(tmp_path / "saved")
    cases: list[tuple[Any, ...]] = [
        *(("calibration", key, value) for key in ("temperature", "spread", "tail") for value in (*NO_NUMBERS, None)),
        *(("prior", "temperature", value) for value in (*NO_NUMBERS, None)),
        *(("scale", key, value) for key in ("low", "high", "eight") for value in ("x", None, True, [1], NO_NUMBERS[4])),
        *(("scale", "invert", value) for value in ("x", None, 1)),
        *(("settings", "penalty", value) for value in (*NO_NUMBERS, None)),
        *(("settings", "novelty_threshold", value) for value in ("x", None, [1], {}, NO_NUMBERS[4])),
        *(("settings", "none_label", value) for value in ([1], {}, "1")),
        *(("settings", "value_range", value) for value in ([1], "x", [1, "x"], [1, 0], {})),
        *(("classes", "values", value) for value in ("x", [], [1, 2], ["0"] * 6, list("543210"), [["0"]] * 6, None)),
        *(("classes", "dtype", value) for value in (None, 7, [1])),
        *(("classes", "kind", value) for value in ("int64", "object", None, 7, [1])),
        *((key, None, value) for key in ("temperature",) for value in (*NO_NUMBERS, None)),
        *((key, None, value) for key in ("n_features_in",) for value in ("x", True, [1], 1.5, -1, 0)),
        *((key, None, value) for key in ("picture_shape",) for value in ("x", True, ["x"], [-1], [True], 7)),
        *((key, None, value) for key in ("left_out_error",) for value in ("x", [1], {}, 2)),
    ]
    for place, key, value in cases:
        content = copy.deepcopy(good)
        if key is None:
            content[place] = value
        else:
            content[place][key] = value
        path.write_text(json.dumps(content))
        if (place, key) == ("classes", "dtype"):  # text has one type
            FewShotClassifier.load(tmp_path / "saved")
            continue
        with pytest.raises(InputError, match="not a saved classifier"):
            FewShotClassifier.load(tmp_path / "saved")


def test_a_small_file_takes_little_memory(drawn: tuple[Array, ...], tmp_path: Path) -> None:
    """70 KB of labels, one of them long, took 3.9 GB as an array of texts of one width."""
    X, y, _, _ = drawn
    FewShotClassifier(device="cpu").fit(X, y.astype(str)).save(tmp_path / "saved")
    path = tmp_path / "saved" / "classifier.json"
    content = json.loads(path.read_text())
    for values, count in (
        (sorted([str(n) for n in range(10_000)] + ["x" * 100_000]), 10_001),
        (sorted(str(n) for n in range(100_000)), None),
        ([["0"] * 10] * 10, None),
    ):
        content["classes"] = {"kind": "str", "dtype": "str", "values": values}
        path.write_text(json.dumps(content))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if count is None:
            with pytest.raises(InputError, match="not a saved classifier"):
                FewShotClassifier.load(tmp_path / "saved")
        else:
            assert len(FewShotClassifier.load(tmp_path / "saved").classes_) == count
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_encoders_that_are_none(drawn: tuple[Array, ...]) -> None:
    X, y, _, _ = drawn
    for wrong in (torch.nn.Linear(2, 2), 7, None):
        with pytest.raises(InputError, match="a name, a folder"):
            FewShotClassifier(wrong).fit(X, y)  # type: ignore[arg-type]
    small = Encoder(EncoderConfig(width=4, size=16, latent=3, norm="group"))
    assert FewShotClassifier(small, device="cpu").fit(X, y).support_.shape == (24, 3)
