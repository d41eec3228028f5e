"""The sections of a config that say which episodes are trained and validated on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from episodes import (
    ClassWarp,
    Episodes,
    EpisodeSampler,
    EpisodeShape,
    ImageBank,
    InputError,
    ViewSampler,
    Within,
    WithinSampler,
    picture_classes,
)


@dataclass
class EpisodeSection:
    """The shape of training episodes.

    Args:
        way: classes per episode.
        shot: support images per class.
        query: query images per class.
        tasks: episodes per optimiser step.
        classes: labels | pictures (no label is used: each class is one picture, under random changes of augment) |
            neighbours (each class is an image and those that encoder.source takes for the same).
        neighbours: how many images at most are taken for the same, for classes: neighbours.
        within: which episodes have classes that share a value of an attribute; null for none. Needs labels.
        class_warp: what is drawn once for each class of an episode and done to all its images before augment does its
            own to each: more classes than there are. The learner's loss alone sees it where mode guided draws views.

    Example:
        >>> from metagvae.config import EpisodeSection
        >>> print(EpisodeSection(way=20, shot=1, query=5, tasks=4).shape)
        20-way 1-shot
    """

    way: int = 20
    shot: int = 1
    query: int = 5
    tasks: int = 1
    classes: str = "labels"
    neighbours: int = 3
    within: Within | None = None
    class_warp: ClassWarp | None = None

    def __post_init__(self) -> None:
        if self.classes not in ("labels", "pictures", "neighbours"):
            raise InputError(
                f"episodes.classes must be 'labels', 'pictures' or 'neighbours'; received {self.classes!r}."
            )
        if self.within and not self.labelled:
            raise InputError("episodes.within needs episodes.classes 'labels': pictures alone have no attributes.")

    @property
    def labelled(self) -> bool:
        """Whether the images' own labels make the episodes."""
        return self.classes == "labels"

    @property
    def shape(self) -> EpisodeShape:
        """Ways, shots and queries."""
        return EpisodeShape(self.way, self.shot, self.query)

    def bank(self, bank: ImageBank) -> ImageBank:
        """The bank whose classes make the episodes; without labels, it has none."""
        return bank if self.labelled else picture_classes(bank)

    def sampler(
        self, bank: ImageBank, seed: int, stream: str, turns: bool, groups: Tensor | None = None
    ) -> EpisodeSampler:
        """The sampler of such episodes; ``groups`` as `ViewSampler` takes them."""
        drawn = Episodes(self.shape, seed, stream, turns, self.within)
        if self.within:
            return WithinSampler(bank, drawn)
        return EpisodeSampler(bank, drawn) if self.labelled else ViewSampler(bank, drawn, groups)


@dataclass
class ValidationSection:
    """How the best state is chosen, on validation classes. A start or a teacher that was trained on one is refused.

    Args:
        every: steps between validations; 0 for none (the last state is then the best).
        way: classes per episode.
        shot: support images per class.
        query: query images per class.
        episodes: how many.
        within: as for training episodes.

    Example:
        >>> from metagvae.config import ValidationSection
        >>> print(ValidationSection(every=500, way=5, shot=1).shape)
        5-way 1-shot
    """

    every: int = 500
    way: int = 5
    shot: int = 1
    query: int = 15
    episodes: int = 300
    within: Within | None = None

    def __post_init__(self) -> None:
        if self.every < 0 or self.episodes < 2:
            raise InputError(
                "validation needs every >= 0 and, for its spread, episodes >= 2; received "
                f"{self.every} and {self.episodes}."
            )

    @property
    def shape(self) -> EpisodeShape:
        """Ways, shots and queries."""
        return EpisodeShape(self.way, self.shot, self.query)
