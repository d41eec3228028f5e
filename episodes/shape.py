"""Which episodes: their shape, and what each is a function of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from episodes.counter_rng import check_seed
from episodes.errors import InputError

if TYPE_CHECKING:
    from episodes.samplers.prescribed import FixedEpisodes

STREAMS = {"train": 0, "validation": 1, "test": 2}
MOST = 2**31 - 1  # ways, shots, queries


@dataclass(frozen=True)
class EpisodeShape:
    """N-way K-shot episodes with Q queries per class.

    Args:
        way: classes per episode, at least 2.
        shot: support images per class, at least 1.
        query: query images per class, at least 1.

    Raises:
        InputError: if a number is out of its range.

    Example:
        >>> from episodes import EpisodeShape
        >>> shape = EpisodeShape(5, 1, 15)
        >>> shape.images, str(shape)
        (16, '5-way 1-shot')
    """

    way: int
    shot: int
    query: int = 15

    def __post_init__(self) -> None:
        for name, value, least in (("way", self.way, 2), ("shot", self.shot, 1), ("query", self.query, 1)):
            if value < least:
                raise InputError(f"episodes need {name} >= {least}; received {name} = {value}.")
            if value > MOST:
                raise InputError(f"episodes can have at most {MOST:,} of each; received {name} = {str(value)[:100]}.")

    @property
    def images(self) -> int:
        """Images of each class in an episode, support and query."""
        return self.shot + self.query

    def __str__(self) -> str:
        return f"{self.way}-way {self.shot}-shot"


@dataclass(frozen=True)
class Within:
    """Which episodes are drawn among classes that share a value of an attribute.

    Args:
        attribute: of the bank's classes, such as ``alphabet``.
        share: of the episodes that are drawn so; the others are drawn from all classes.
        same_hands: take the pictures of the same numbers from every class. The n-th drawings of Omniglot's
            characters of one alphabet are by one person, so a shot or a query is then of one hand in all classes.
    """

    attribute: str = "alphabet"
    share: float = 1.0
    same_hands: bool = False


@dataclass(frozen=True)
class Episodes:
    """A sequence of episodes: number ``i`` is a pure function of ``(seed, stream, i)``.

    Args:
        shape: of each.
        seed: any integer of 64 bits, with its sign.
        stream: ``train``, ``validation`` or ``test``; streams of one seed are independent.
        rotations: whether each class of an episode gets a quarter turn (MAML's way with Omniglot).
        within: draw the classes of an episode among those that share a value of an attribute.
        fixed: the episodes themselves, where the data set prescribes them.

    Raises:
        InputError: if the stream is unknown, or the seed too large.

    Example:
        >>> from episodes import Episodes, EpisodeShape
        >>> benchmark = Episodes(EpisodeShape(5, 1, 15), seed=0, stream="test")
    """

    shape: EpisodeShape
    seed: int = 0
    stream: str = "train"
    rotations: bool = False
    within: Within | None = None
    fixed: FixedEpisodes | None = None

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise InputError(f"unknown stream '{self.stream}'; allowed: {', '.join(STREAMS)}.")
        check_seed(self.seed, "the seed of the episodes")
