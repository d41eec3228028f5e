"""How methods are measured: on which episodes and images, and what stands on a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from episodes import EpisodeShape, InputError
from episodes.counter_rng import check_seed
from episodes.datasets import Dataset
from episodes.shape import Within


@dataclass(frozen=True)
class Protocol:
    """Which episodes methods are measured on.

    Args:
        ways, shots: every pair of them is measured; None takes what the data set prescribes, else 5 and 1.
        query: query images per class.
        episodes: how many of each shape.
        seed: of the episodes; the same seed gives the same episodes everywhere.
        split: of the data set: test, validation or train.
        within: draw the classes of an episode among those that share a value of an attribute.
        unit: what the interval over classes is taken by: ``class`` or an attribute such as ``alphabet``; None takes
            the alphabet or script where the classes have one, else the class.

    Example:
        >>> from episodes.datasets import make_dataset
        >>> from metagvae.studies.protocol import Protocol
        >>> Protocol(ways=[5, 20], shots=[1]).shapes(make_dataset("digits"))
        [(5, 1), (20, 1)]
    """

    ways: Sequence[int] | None = None
    shots: Sequence[int] | None = None
    query: int = 15
    episodes: int = 1000
    seed: int = 0
    split: str = "test"
    within: Within | None = None
    unit: str | None = None

    def shapes(self, dataset: Dataset) -> list[tuple[int, int]]:
        """Every (way, shot), each once: a shape given twice would pass for a second training seed."""
        way, shot = dataset.prescribed or (5, 1)
        return list(dict.fromkeys((w, s) for w in self.ways or (way,) for s in self.shots or (shot,)))

    def check(self, dataset: Dataset) -> None:
        """Raises `InputError` if the split cannot give such episodes; no image is opened for it."""
        for way, shot in self.shapes(dataset):
            dataset.check_episodes(self.split, EpisodeShape(way, shot, self.query))


@dataclass(frozen=True)
class Head:
    """The classifier on a frozen encoder, and the features that it sees.

    Args:
        learner: for --encoder, a row for each: prototypes | ridge | soft-k-means | easyfsl:METHOD (such as
            easyfsl:SimpleShot); leave out for prototypes.
        head: the older name of learner, for a single one.
        head_options: options of that learner, such as distance: cosine.
        features: what encoders return: latent, backbone, or groups such as content; leave out for each one's own.
        warps: average each image's features with those of so many mildly warped copies.
        mirror: take every second of these copies from the mirror image: for photographs, whose class a mirror leaves as
            it is.
        votes: a weight for each part of a joined encoder (A+B), such as 0.3 1: each part's features are brought to
            length 1, and its squared distances count so much; leave out to join the features as they are.
        counterfactual: light=8 draws each support image under eight lights, by the causal prior of each run, and gives
            a query to the class of its nearest copy; by pixels, or by --features. Several factors, such as hole=8
            height=8, are set together, in every combination.

    Raises:
        InputError: if both head and learner are given, or mirror without warps.

    Example:
        >>> from metagvae.studies.protocol import Head
        >>> print(Head("prototypes", {"distance": "cosine"}, features=["content"]).head)
        prototypes
    """

    head: str | None = None
    head_options: dict[str, Any] | None = None
    features: list[str] | None = None
    warps: int = 0
    mirror: bool = False
    learner: list[str] | None = None
    votes: list[float] | None = None
    counterfactual: list[str] | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.learner:
            raise InputError("--head is the older name of --learner, and both are given; leave --head out.")
        if self.mirror and not self.warps:
            raise InputError(
                "--mirror mirrors every second of the --warps copies, and --warps is 0; give --warps 8 too."
            )

    @property
    def names(self) -> list[str]:
        """The learners' names, each once."""
        return list(dict.fromkeys(self.learner or [self.head or "prototypes"]))

    @property
    def factors(self) -> dict[str, int]:
        """How many numbers each factor of ``counterfactual`` is set to.

        Raises:
            InputError: if one is not written as ``light=8``.
        """
        found = {}
        for text in self.counterfactual or []:
            name, _, count = text.partition("=")
            if not name or not count.isdecimal() or not 1 <= int(count) <= 1000:
                raise InputError(
                    f"--counterfactual takes a factor and how many numbers to set it to, such as light=8; received "
                    f"{text[:100]!r}."
                )
            found[name] = int(count)
        return found


@dataclass(frozen=True)
class Scoring:
    """Images with known factors to score encoders on, and the episodes of the error beside the scores.

    Args:
        pictures: warped (characters of --data under known rotation, scale and shift) | sprites (like dSprites) |
            factors (the images of --data and their own factors, such as those of pendulum).
        data: the data set of the images and of the episodes; sprites have no episodes.
        root: where its images are; leave out to look under METAGVAE_DATA and ./data.
        rotations: none | classes | episode; of the episodes.
        way: classes per episode.
        shot: support images per class.
        episodes: how many.
        split: test | validation | train; of the characters and of the episodes.
        count: images to fit the scorers on; half as many others to score on.
        seed: of images and episodes.

    Raises:
        InputError: if a number or name is out of its range.
    """

    pictures: str = "warped"
    data: str = "omniglot"
    root: str | None = None
    rotations: str = "classes"
    way: int = 20
    shot: int = 1
    episodes: int = 1000
    split: str = "test"
    count: int = 10_000
    seed: int = 0

    @property
    def protocol(self) -> Protocol:
        """The episodes that the few-shot error is measured on."""
        return Protocol([self.way], [self.shot], episodes=self.episodes, seed=self.seed, split=self.split)

    def __post_init__(self) -> None:
        if self.pictures not in ("warped", "sprites", "factors"):
            raise InputError(f"--pictures must be 'warped', 'sprites' or 'factors'; received {self.pictures!r}.")
        check_seed(self.seed, "--seed", -(2**62), 2**62 - 1)  # pictures are drawn with its double
        if self.count < 1000:
            raise InputError(f"scores need --count of 1,000 images or more; received {self.count}.")
