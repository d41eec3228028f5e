"""Error of a classifier trained on a frozen encoder's features: how much of the class the latent holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from episodes import ImageBank, InputError
from metagvae.compute.device import Device
from metagvae.evaluation.embedding import embed_bank
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

PENALTIES = {"linear": (0.1, 1.0, 10.0), "kernel": (1.0, 10.0, 100.0)}
CHOOSING = 10_000  # training pictures that the penalty is chosen with
HELD_OUT = 6  # one in so many of them is kept to choose by


@dataclass
class ProbeResult:
    """Error of one classifier on the test split.

    Args:
        encoder, features: what it saw.
        size: numbers per picture.
        classifier: ``linear`` or ``kernel``.
        penalty: its C, chosen on training pictures held out.
        error: fraction in [0, 1] of the test pictures.
        half_width: half of its 95 % interval over test pictures, by Wilson's score: not 0 where nothing erred.
        pictures: of the training and test splits.
        about: the encoder's card.
    """

    encoder: str
    features: str
    size: int
    classifier: str
    penalty: float
    error: float
    half_width: float
    pictures: tuple[int, int]
    about: dict[str, Any] = field(default_factory=dict, repr=False)


def make_classifier(kind: str, penalty: float) -> Any:
    """Scikit-learn's, on features of mean 0 and deviation 1.

    ``linear`` is multinomial logistic regression, ``kernel`` a support vector machine with a Gaussian kernel
    (gamma one over the number of features).

    Raises:
        InputError: if the kind is neither.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if kind not in PENALTIES:
        raise InputError(f"a probe's classifier is one of {', '.join(PENALTIES)}; received {kind!r}.")
    last = LogisticRegression(C=penalty, max_iter=500) if kind == "linear" else SVC(C=penalty, cache_size=500)
    return make_pipeline(StandardScaler(), last)


def _features(encoder: nn.Module, bank: ImageBank, device: Device) -> tuple[np.ndarray, np.ndarray]:
    return embed_bank(encoder, bank, device).cpu().numpy(), bank.labels.cpu().numpy()


def probe(
    name: str,
    encoder: nn.Module,
    train: ImageBank,
    test: ImageBank,
    classifiers: Sequence[str] = ("linear", "kernel"),
    device: Device | None = None,
) -> list[ProbeResult]:
    """Trains each classifier on features of the training split and measures it on the test split.

    Its penalty is the one of least error on every sixth training picture, after training on at most 10,000 of the
    others; then it is trained on all.

    Raises:
        InputError: if the splits do not hold the same classes, or a classifier is unknown.
    """
    from scipy.stats import binomtest

    if test.class_names != train.class_names:
        raise InputError(
            f"a classifier needs the same classes in both splits; the {test.split} split of {test.dataset} has others "
            "than its train split. Few-shot data sets are measured by `metagvae evaluate`."
        )
    device = device or Device.choose("cpu", "float32")
    device.place(encoder.eval())
    (x, y), (tx, ty) = (_features(encoder, bank, device) for bank in (train, test))
    held = np.arange(len(x)) % HELD_OUT == HELD_OUT - 1
    some = np.random.default_rng(0).permutation(np.flatnonzero(~held))[:CHOOSING]
    results = []
    for kind in classifiers:
        make_classifier(kind, 1.0)  # says so at once if there is no such kind
        errors = {
            c: np.mean(make_classifier(kind, c).fit(x[some], y[some]).predict(x[held]) != y[held])
            for c in PENALTIES[kind]
        }
        penalty = min(errors, key=lambda c: errors[c])
        wrong = int(np.sum(make_classifier(kind, penalty).fit(x, y).predict(tx) != ty))
        interval = binomtest(wrong, len(ty)).proportion_ci(method="wilson")
        results.append(
            ProbeResult(
                encoder=name,
                features="+".join(getattr(encoder, "features", ["all"])),
                size=x.shape[1],
                classifier=kind,
                penalty=penalty,
                error=wrong / len(ty),
                half_width=(interval.high - interval.low) / 2,
                pictures=(len(x), len(tx)),
            )
        )
    return results


def save_probes(results: Sequence[ProbeResult], path: Path) -> None:
    """JSON with every result, a table's rows, and the command and commit that made them."""
    rows = [
        {
            "encoder": r.encoder,
            "features": f"{r.features} ({r.size})",
            "classifier": r.classifier,
            "error, %": f"{100 * r.error:.2f} ± {100 * r.half_width:.2f}",
            "training": r.about.get("method", ""),
        }
        for r in results
    ]
    write_json(path, {"provenance": provenance(), "rows": rows, "results": [asdict(r) for r in results]})
