"""Few-shot error of learners, all on the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from episodes import (
    EpisodeBatch,
    EpisodeIndices,
    Episodes,
    EpisodeSampler,
    EpisodeShape,
    FixedEpisodes,
    ImageBank,
    InputError,
    Within,
    WithinSampler,
)
from episodes.batch import gather_batch
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.encoders.norm import norm_policy
from metagvae.evaluation.class_interval import ClassJackknife, ClassTally, class_units
from metagvae.evaluation.embedding import ROWS, chunk_times, embed_bank, pictures_at_once, progress_bar
from metagvae.evaluation.results import Result, interval
from metagvae.learners import FeatureLearner, Learner

MOST_EPISODES = 10**8
NUMBERS = 2**24  # at most, in the features in flight


def _feature_batch(features: Tensor, drawn: EpisodeIndices) -> EpisodeBatch:
    """Episodes of features ``[turns, M, D]``; turns is 1, or 4 where quarter turns are drawn."""
    images = drawn.images
    if drawn.turns is None:
        gathered = features[0][images]
    else:
        gathered = features[drawn.turns.unsqueeze(-1), images]
    return EpisodeBatch(gathered, drawn.shot, drawn.classes, images)


def _measured(wrong: np.ndarray, learner: Learner) -> np.ndarray:
    """The errors of all episodes, read back at once; raises `InputError` if the learner has no answer to some."""
    failed = np.isnan(wrong).sum()
    if failed:
        raise InputError(
            f"the learner '{learner.name}' gives logits that are not finite in {failed} of {len(wrong)} episodes; its "
            "weights or the encoder's features are not finite, or too large to solve with. Train with a lower optim.lr "
            "or optim.precision float32, or measure another learner."
        )
    return wrong


def _described(within: Within | None) -> str:
    if within is None:
        return ""
    share = "" if within.share == 1 else f", {within.share:g} of the episodes"
    return within.attribute + share + (", same hands" if within.same_hands else "")


class Evaluator:
    """Measures learners on one bank; all see the same episodes.

    Args:
        bank: the pictures.
        episodes: their seed, stream, queries and what else they are a function of; the ways and shots of its shape are
            replaced by those that are measured. Where the data set prescribes its episodes, ``fixed`` holds them.
        count: how many episodes of each shape.
        device: where networks run.
        unit: what the interval over classes is taken by (`metagvae.evaluation.class_interval.class_units`).

    Attributes:
        progress: show on stderr how far it is, once it takes more than seconds; False at first.
        frozen: whether no encoder changes from one call to the next, so that learners measured one after the other on
            the same encoder share its features; False at first.

    Raises:
        InputError: if the count is too small for an interval, or the bank has no such unit.

    Example:
        >>> import torch
        >>> from episodes import Episodes, EpisodeShape, ImageBank
        >>> from metagvae.compute.device import Device
        >>> from metagvae.encoders.controls import Pixels
        >>> from metagvae.evaluation.evaluator import Evaluator
        >>> from metagvae.learners import PrototypicalNetwork
        >>> pictures = torch.randint(0, 256, (8, 6, 1, 28, 28), dtype=torch.uint8)
        >>> bank = ImageBank.from_classes([(f"class {i}", x) for i, x in enumerate(pictures)], dataset="noise")
        >>> drawn = Episodes(EpisodeShape(5, 1, 2), stream="test")
        >>> evaluator = Evaluator(bank, drawn, count=50, device=Device.choose("cpu"))
        >>> (result,) = evaluator.measure("pixels", PrototypicalNetwork(Pixels()), [(5, 1)])
        >>> 0 <= result.error <= 1
        True
    """

    progress: bool = False
    frozen: bool = False

    def __init__(
        self,
        bank: ImageBank,
        episodes: Episodes,
        count: int = 1000,
        device: Device | None = None,
        unit: str | None = None,
    ) -> None:
        fixed = episodes.fixed
        if fixed is not None:
            count = len(fixed)
        if not 2 <= count <= MOST_EPISODES:
            raise InputError(
                f"an interval needs 2 episodes or more, and {MOST_EPISODES:,} at most are drawn; received {count}."
            )
        self.device = device or Device.choose()
        self.bank = self.device.hold(bank)
        self.drawn, self.count, self.unit = episodes, count, unit
        self.query = fixed.query if fixed is not None else episodes.shape.query
        self.fixed = fixed.to(self.bank.device) if fixed is not None else None
        class_units(self.bank, unit)  # says so if there is no such unit
        self._last: tuple[nn.Module, Tensor] | None = None

    def sampler(self, way: int, shot: int) -> EpisodeSampler | FixedEpisodes:
        """Where the episodes come from; raises `InputError` if the bank cannot give such episodes."""
        if self.fixed is not None:
            if (way, shot) != (self.fixed.way, self.fixed.shot):
                raise InputError(
                    f"{self.bank.dataset} prescribes {self.fixed.way}-way {self.fixed.shot}-shot episodes; received "
                    f"--way {way} --shot {shot}. Leave both out."
                )
            return self.fixed
        drawn = replace(self.drawn, shape=EpisodeShape(way, shot, self.query))
        return WithinSampler(self.bank, drawn) if drawn.within else EpisodeSampler(self.bank, drawn)

    def check(self, way: int, shot: int) -> None:
        """Raises `InputError` if the bank cannot give such episodes."""
        self.sampler(way, shot)

    def _features(self, learner: Learner) -> Tensor | None:
        if not isinstance(learner, FeatureLearner) or not learner.embeds_independently:
            return None
        if self.frozen and self._last is not None and self._last[0] is learner.encoder:
            return self._last[1]
        features = self._embedded(learner.encoder)
        if self.frozen:
            self._last = (learner.encoder, features)
        return features

    def _embedded(self, encoder: nn.Module) -> Tensor:
        """float32 ``[turns, M, D]``: the features of all pictures; turns is 1, or 4 where quarter turns are drawn."""
        if not self.drawn.rotations:
            return embed_bank(encoder, self.bank, self.device, self.progress).unsqueeze(0)
        turned = self.bank.with_rotations()
        features = embed_bank(encoder, turned, self.device, self.progress)
        # class c's turns lie behind each other: put each turn's pictures in the bank's own order
        order = [
            torch.cat(
                [
                    torch.arange(int(turned.offsets[4 * c + k]), int(turned.offsets[4 * c + k + 1]))
                    for c in range(self.bank.num_classes)
                ]
            )
            for k in range(4)
        ]
        return torch.stack([features[rows.to(features.device)] for rows in order])

    def errors(self, learner: Learner, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """float64 ``[episodes]`` in [0, 1] for each (way, shot): the share of queries got wrong.

        With an encoder that embeds pictures independently each picture is embedded once for all shapes.

        Raises:
            InputError: if a query's logits are not finite.
        """
        return [errors for errors, _ in self.tallied(learner, shapes)]

    def tallied(self, learner: Learner, shapes: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, ClassJackknife]]:
        """The `errors`, and for each shape what the error would be without each unit of classes."""
        was_training = learner.training
        learner.eval()
        self.device.place(learner)
        features = self._features(learner)
        results = []
        for way, shot in shapes:
            sampler, tally = self.sampler(way, shot), ClassTally(self.bank, self.unit, self.device.device)
            chunk = self._episodes_at_once(features, way, shot)
            bar = progress_bar(f"{way}-way {shot}-shot episodes", self.count, self.progress)

            def measured(
                start: int,
                stop: int,
                sampler: EpisodeSampler | FixedEpisodes = sampler,
                tally: ClassTally = tally,
                bar: tqdm[NoReturn] = bar,
            ) -> Tensor:
                bar.update(ranks().size * (stop - start))
                return self._wrong(learner, sampler.span(start, stop - start), features, tally)

            with bar:
                wrong = ranks().split(self.count, chunk, measured, self.device.device)
            results.append((_measured(wrong.double().cpu().numpy(), learner), tally.result(ranks().sum)))
        learner.train(was_training)
        return results

    def answers(self, learner: Learner, way: int, shot: int) -> tuple[EpisodeIndices, Tensor]:
        """The episodes that `errors` measures, and the way each query is put into, int64 ``[episodes, N * Q]``."""
        learner.eval()
        self.device.place(learner)
        features, drawn = self._features(learner), self.sampler(way, shot).span(0, self.count)
        chunk = self._episodes_at_once(features, way, shot)
        parts = [
            self._logits(learner, drawn.tasks_from(start, chunk), features)[0].argmax(-1)
            for start in range(0, self.count, chunk)
        ]
        return drawn, torch.cat(parts)

    def _episodes_at_once(self, features: Tensor | None, way: int, shot: int) -> int:
        if features is None:
            rows = pictures_at_once(self.bank)
        else:
            rows = min(ROWS, NUMBERS // features.shape[-1]) * chunk_times(self.device)
        return max(1, rows // (way * (shot + self.query)))

    def _wrong(self, learner: Learner, drawn: EpisodeIndices, features: Tensor | None, tally: ClassTally) -> Tensor:
        """The share of queries got wrong, ``[T]``; NaN where a logit is not finite. The host waits for none of it."""
        logits, labels = self._logits(learner, drawn, features)
        answers = logits.argmax(-1)
        others = logits.scatter(-1, answers.unsqueeze(-1), -torch.inf).argmax(-1)
        tally.add(drawn.classes, answers, others, labels)
        wrong = (answers != labels).float()
        return wrong.masked_fill(~logits.isfinite().all(-1), torch.nan).mean(-1)

    @torch.no_grad()
    def _logits(self, learner: Learner, drawn: EpisodeIndices, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each query's score of each way, ``[T, N * Q, N]``, and the way that it is of, int64 ``[T, N * Q]``."""
        if features is not None:
            assert isinstance(learner, FeatureLearner)
            batch = _feature_batch(features, drawn.to(features.device))
            logits = learner.ask_head(learner.fit_head(batch.support), batch.query)
        else:
            batch = gather_batch(self.bank, drawn, pin=self.bank.device != self.device.device)
            batch = batch.to(self.device.device).scaled()
            with self.device.precision():
                logits = learner.predict(learner.adapt(batch.support), batch.query)
        return logits, batch.query_labels

    def measure(
        self, method: str, learner: Learner, shapes: Sequence[tuple[int, int]], encoder: str = ""
    ) -> list[Result]:
        """A `Result` for each (way, shot)."""
        return [
            Result(
                method=method,
                dataset=self.bank.dataset,
                split=self.bank.split,
                split_hash=self.bank.fingerprint,
                way=way,
                shot=shot,
                query=self.query,
                episodes=self.count,
                seed=self.drawn.seed,
                encoder=encoder or method,
                features="+".join(getattr(learner.encoder, "features", ["all"])),
                learner=learner.name,
                norm=norm_policy(learner.encoder),
                transductive=learner.transductive,
                rotations="episode" if self.drawn.rotations else "as loaded",
                precision=self.device.precision_name,
                error=float(errors.mean()),
                half_width=interval(errors),
                per_episode=errors,
                within=_described(self.drawn.within),
                warps=getattr(learner.encoder, "warps", 0),
                per_run=errors.tolist() if self.fixed is not None else None,
                classes=classes,
            )
            for (way, shot), (errors, classes) in zip(shapes, self.tallied(learner, shapes), strict=True)
        ]
