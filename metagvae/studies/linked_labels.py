"""Links between images and labels: the label from an image, and an image from the label alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for
from episodes.datasets import Dataset
from metagvae.encoders.dictionary_learning import DictionaryLearner
from metagvae.encoders.linked import Ridge
from metagvae.encoders.sparse import SparseConfig, SparseEncoder
from metagvae.evaluation.linear_probe import CHOOSING, make_classifier
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json

LABELS = (1, 5, 20, 100)  # a class
DRAWS = 5
FEW_PENALTY = 0.1  # of the ridge on few labels, for features of length 1
PENALTIES = (0.003, 0.03, 0.3, 3.0)  # tried on a sixth of the training images that is kept apart
READ_OUT = (0.001, 0.01, 0.1)  # C of the logistic regression, chosen likewise
_UPDATES, _BATCH, _PATCHES = 150, 128, 8
_SEEN, _TURNED_BY = 2000, 6000  # images of the first atoms; of the mean and the directions of pooled codes


@dataclass
class LabelLink:
    """The worth of a link between sparse codes and labels.

    Attributes:
        images: how many labelled training images, and how many test images.
        from_image: error of the label from an image by ridge regression, by features: ``codes`` and ``pixels``; in %.
        read_out: the same by logistic regression, the field's linear read-out.
        few: the same with so many labels a class, fewer than the rarest class has: mean and standard deviation over
            draws.
        from_label: classes whose image, made of the label alone, is nearest to the mean training image of that class.
        made: that image of each class, ``[classes, C, size, size]``.
    """

    dataset: str
    encoder: SparseConfig
    images: tuple[int, int]
    from_image: dict[str, float] = field(default_factory=dict)
    read_out: dict[str, float] = field(default_factory=dict)
    penalties: dict[str, float] = field(default_factory=dict)
    few: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)
    from_label: int = 0
    made: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)

    def table(self) -> str:
        """A line for each number of labels, then the way back."""
        lines = ["label from an image, error in %           sparse codes         pixels"]
        for labels, row in self.few.items():
            codes, pixels = (f"{mean:.1f} ± {sd:.1f}" for mean, sd in (row["codes"], row["pixels"]))
            lines.append(f"{f'{labels} a class, mean and sd of {DRAWS} draws':40}{codes:>14}{pixels:>15}")
        codes, pixels = (f"{self.from_image[name]:.2f}" for name in ("codes", "pixels"))
        lines.append(f"{f'all {self.images[0]:,}':40}{codes:>14}{pixels:>15}")
        codes, pixels = (f"{self.read_out[name]:.2f}" for name in ("codes", "pixels"))
        lines.append(f"{'the same, logistic regression':40}{codes:>14}{pixels:>15}")
        lines.append(f"image from a label: nearest to its own class for {self.from_label} of {len(self.made)} classes")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """JSON with the settings, every error, and the command and commit that made them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {key: value for key, value in vars(self).items() if key not in ("made", "encoder")}
        rows = [
            {"labels a class": str(few), **{name: f"{mean:.1f} ± {sd:.1f}" for name, (mean, sd) in row.items()}}
            for few, row in self.few.items()
        ]
        every = {name: f"{error:.2f}" for name, error in self.from_image.items()}
        rows.append({"labels a class": f"all {self.images[0]:,} images", **every})
        every = {name: f"{error:.2f}" for name, error in self.read_out.items()}
        rows.append({"labels a class": "the same, logistic regression", **every})
        about = (
            f"Error in % of the label of {self.images[1]:,} test images, by ridge regression unless said; ± the "
            f"standard deviation over {DRAWS} draws. Image from a label alone: nearest to its own class for "
            f"{self.from_label} of {len(self.made)} classes."
        )
        made = {"provenance": provenance(), "about": about, "rows": rows, "encoder": asdict(self.encoder)}
        write_json(path, {**made, "classes": len(self.made), **plain})


def link_labels(dataset: Dataset, config: SparseConfig, count: int, seed: int = 0) -> LabelLink:
    """Learns a dictionary of images, and links codes and labels both ways by ridge regression.

    Args:
        dataset: whose training and test split hold the same classes, such as mnist.
        config: of the encoder; its channels, size and polarity are those of the images.
        count: labelled training images, evenly spread.

    Raises:
        InputError: if the splits hold different classes, the images do not fit the encoder's settings, or these whiten
            patches, of which no image can be put together.
    """
    if config.whiten:
        raise InputError("a link to labels puts images together from codes, and those of whitened patches give none.")
    train, test = dataset.load("train"), dataset.load("test")
    if train.class_names != test.class_names:
        raise InputError(f"a link to labels needs the same classes in training and test; {dataset.name} splits them.")
    rows = torch.linspace(0, len(train) - 1, min(count, len(train))).long()
    images, labels = to_float(train.gather(rows)), train.labels[rows]
    asked = to_float(test.gather(torch.arange(len(test))))
    encoder = SparseEncoder(_of(config, train)).eval()
    _learn(encoder, images, seed)
    features = {
        "codes": (_features(encoder, images), _features(encoder, asked)),
        "pixels": (F.normalize(images.flatten(1), dim=1), F.normalize(asked.flatten(1), dim=1)),
    }
    found = LabelLink(dataset.name, encoder.config, (len(images), len(test)))
    for name, (x, y) in features.items():
        penalty = _chosen(x, labels, train.num_classes)
        found.penalties[name] = penalty
        found.from_image[name] = _error(x, labels, y, test.labels, train.num_classes, penalty)
        found.read_out[name] = _read_out(x, labels, y, test.labels)
    least = int(labels.bincount(minlength=train.num_classes).min())
    for few in (few for few in LABELS if few < least):  # of as many, every draw would be the same
        found.few[few] = _few(features, labels, test.labels, train.num_classes, few, seed)
    found.made, found.from_label = _from_labels(encoder, images, labels, train.num_classes)
    return found


def _of(config: SparseConfig, bank: ImageBank) -> SparseConfig:
    channels, size, _ = bank.image_shape
    return SparseConfig(**{**asdict(config), "channels": channels, "size": size, "polarity": bank.polarity})


def _learn(encoder: SparseEncoder, images: Tensor, seed: int) -> None:
    """Learns the dictionary, and the mean of the features, from images ``[M, C, size, size]``."""
    generator = torch.Generator().manual_seed(seed_for(seed, 41))
    some = images[torch.randperm(len(images), generator=generator)[:_TURNED_BY]]
    config = encoder.config
    first = encoder.patches.drawn(some[:_SEEN], _PATCHES, generator)
    learner = DictionaryLearner(first, config.atoms, config.penalty, steps=30, positive=config.positive, seed=seed)
    for _ in range(_UPDATES):
        rows = torch.randint(len(images), (_BATCH,), generator=generator)
        learner.update(encoder.patches.drawn(images[rows], _PATCHES, generator))
    encoder.set_dictionary(learner.dictionary)
    encoder.fit_features(some, generator)


@torch.no_grad()
def _features(encoder: SparseEncoder, images: Tensor) -> Tensor:
    return torch.cat([encoder(part) for part in images.split(256)])


def _answers(x: Tensor, labels: Tensor, asked: Tensor, classes: int, penalty: float) -> Tensor:
    """The class that ridge regression on one-hot labels gives each row of ``asked``, int64 ``[M]``."""
    x, asked = F.pad(x, (0, 1), value=1.0), F.pad(asked, (0, 1), value=1.0)
    targets = F.one_hot(labels, classes).to(x.dtype)
    if len(x) < x.shape[1]:  # through the dual: as many equations as examples
        gram = (x @ x.T).double() + penalty * torch.eye(len(x), dtype=torch.float64)
        weights = x.T @ torch.linalg.solve(gram, targets.double()).float()
    else:
        ridge = Ridge(penalty)
        for start in range(0, len(x), 8192):
            ridge.add(x[start : start + 8192], targets[start : start + 8192])
        weights = ridge.weights()
    scores: Tensor = asked @ weights
    return scores.argmax(1)


def _error(x: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, classes: int, penalty: float) -> float:
    return 100 * float((_answers(x, labels, asked, classes, penalty) != truth).double().mean())


def _chosen(x: Tensor, labels: Tensor, classes: int) -> float:
    """The penalty of the least error on every sixth training image, solved on the others."""
    apart = torch.arange(len(x)) % 6 == 5
    errors = {p: _error(x[~apart], labels[~apart], x[apart], labels[apart], classes, p) for p in PENALTIES}
    return min(errors, key=lambda p: errors[p])


def _read_out(x: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Error in % of multinomial logistic regression, its C chosen on every sixth training image."""
    rows, answers = x.numpy(), labels.numpy()
    apart = np.arange(len(rows)) % 6 == 5
    some = np.random.default_rng(0).permutation(np.flatnonzero(~apart))[:CHOOSING]
    errors = {
        c: np.mean(make_classifier("linear", c).fit(rows[some], answers[some]).predict(rows[apart]) != answers[apart])
        for c in READ_OUT
    }
    best = min(errors, key=lambda c: errors[c])
    made = make_classifier("linear", best).fit(rows, answers)
    return 100 * float(np.mean(made.predict(asked.numpy()) != truth.numpy()))


def _few(
    features: dict[str, tuple[Tensor, Tensor]], labels: Tensor, truth: Tensor, classes: int, few: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the error over draws of ``few`` labelled images a class, the same for all."""
    errors: dict[str, list[float]] = {name: [] for name in features}
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(seed_for(seed, 42, draw))
        order = torch.randperm(len(labels), generator=generator)
        rows = torch.cat([order[labels[order] == number][:few] for number in range(classes)])
        for name, (x, asked) in features.items():
            errors[name].append(_error(x[rows], labels[rows], asked, truth, classes, FEW_PENALTY))
    return {name: _mean_and_deviation(values) for name, values in errors.items()}


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    numbers = torch.tensor(values, dtype=torch.float64)
    return float(numbers.mean()), float(numbers.std())


@torch.no_grad()
def _from_labels(encoder: SparseEncoder, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, int]:
    """An image for each label alone, and how many are nearest to the mean image of their own class.

    The ridge from one-hot labels to codes is their mean by class, a little towards zero.
    """
    ridge = Ridge(1.0)
    rows = torch.arange(0, len(images), max(1, len(images) // 5000))
    for part in rows.split(256):
        ridge.add(F.one_hot(labels[part], classes).float(), encoder.codes(images[part]).flatten(1))
    places = encoder.patches.places
    codes = ridge.weights().view(classes, places, places, encoder.config.atoms)
    made = encoder.put_together(codes).clamp(0, 1)
    means = torch.stack([images[labels == number].mean(0) for number in range(classes)])
    nearest = torch.cdist(made.flatten(1), means.flatten(1)).argmin(1)
    return made, int((nearest == torch.arange(classes)).sum())
