"""Options that belong together, one dataclass each; a command takes the group, a person its options one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from episodes.errors import InputError

if TYPE_CHECKING:
    from episodes.datasets import Dataset
    from metagvae.studies.protocol import Protocol


@dataclass(frozen=True)
class DataOptions:
    """The images.

    Args:
        data: a registered data set; leave out for the first run's, or without a run for glyphs. What is not said of a
            run's own data set is taken from the run.
        root: where its images are; leave out to look under METAGVAE_DATA and ./data.
        size: side of the images in pixels; leave out for the data set's usual one, or of a folder the encoder's.
        rotations: none | classes | episode.
        data_options: further options of that data set.
    """

    data: str | None = None
    root: str | None = None
    size: int | None = None
    rotations: str | None = None
    data_options: dict[str, Any] | None = None

    def dataset(self, sources: Sequence[str], episodes: bool = True) -> Dataset:
        """The data set; what is not said comes from the first run among ``sources``.

        Args:
            episodes: whether the command draws any, whose classes can be turned.

        Raises:
            InputError: if episodes are to be turned, and there are none.
        """
        if self.rotations == "episode" and not episodes:
            raise InputError(
                "--rotations episode turns the classes of each episode, and this command draws none; choose none or "
                "classes."
            )
        from metagvae.studies.measured_data import choose_dataset

        return choose_dataset(sources, self.data, self.root, self.size, self.rotations, self.data_options)


@dataclass(frozen=True)
class EpisodeOptions:
    """The episodes.

    Args:
        way: classes per episode, one or more numbers; leave out for 5, or what the data set prescribes.
        shot: support images per class, one or more numbers; leave out for 1, or what the data set prescribes.
        query: query images per class.
        episodes: how many episodes per shape.
        seed: of the episodes; the same seed gives the same episodes everywhere.
        split: test | validation | train.
        within: an attribute, such as alphabet, that all classes of an episode share.
        same_hands: with within, take the images of the same numbers from every class.
        unit: what the interval over classes is taken by: class, or an attribute such as alphabet; leave out for the
            alphabet or script where the classes have one, else class.
    """

    way: list[int] | None = None
    shot: list[int] | None = None
    query: int = 15
    episodes: int = 1000
    seed: int = 0
    split: str = "test"
    within: str | None = None
    same_hands: bool = False
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.same_hands and not self.within:
            raise InputError("--same_hands goes with --within ATTRIBUTE, such as --within alphabet.")

    @property
    def protocol(self) -> Protocol:
        """The same, as studies take it."""
        from episodes.shape import Within
        from metagvae.studies.protocol import Protocol

        within = Within(self.within, same_hands=self.same_hands) if self.within else None
        return Protocol(self.way, self.shot, self.query, self.episodes, self.seed, self.split, within, self.unit)
