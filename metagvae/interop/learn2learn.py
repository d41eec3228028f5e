"""learn2learn (Arnold et al., 2020): our encoders and episodes in their learners, their tasks in ours.

learn2learn is imported when a function needs it, never before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, ImageBank, InputError, to_float
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.norm import norm_policy, task_rows
from metagvae.encoders.running_averages import averages_as_they_stand


def require_learn2learn() -> Any:
    """The package ``learn2learn``.

    Raises:
        InputError: with the commands that install it.
    """
    try:
        import learn2learn
    except ImportError as error:
        raise InputError(
            f"learn2learn cannot be imported ({error}). Run ./scripts/install.sh, or by hand:\n"
            '  pip install --upgrade "pip>=24"\n'
            "  pip install cython requests dill gym\n"
            '  pip install --no-deps --config-settings="--build-option=build_ext" learn2learn==0.2.0\n'
            "A plain 'pip install learn2learn' does not build on Python 3.11 and later."
        ) from error
    return learn2learn


class EncoderClassifier(nn.Module):
    """An encoder and a linear head; made by `as_learn2learn_module`."""

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, images: Tensor, support: Tensor | None = None) -> Tensor:
        """Logits ``[M, way]`` of one task's pictures ``[M, C, H, W]`` in [0, 1].

        Args:
            support: ``[S, C, H, W]``; under the norm policy ``support`` its statistics normalise ``images``.
                None where ``images`` are the support set themselves. Other policies do not look at it.
        """
        lead = 0
        if support is not None and norm_policy(self.encoder) == "support":
            lead = len(support)
            images = torch.cat([support, images])
        with averages_as_they_stand(self.encoder), task_rows(self.encoder, 1, lead or None):
            features = self.encoder(images)
        logits: Tensor = self.head(features[lead:])
        return logits


def as_learn2learn_module(encoder: nn.Module, way: int) -> EncoderClassifier:
    """The encoder with a new linear head, for ``learn2learn.algorithms.MAML(module, lr)`` and its kin.

    The parameters are the encoder's own, so that what learn2learn trains is trained in ``encoder``; those its
    features do not use are left out, as learn2learn stops at a parameter without a gradient. Choose
    ``encoder.features`` first. Running averages are used as they stand and not updated.

        learner = learn2learn.algorithms.MAML(as_learn2learn_module(encoder, 5), lr=0.4).clone()
        learner.adapt(F.cross_entropy(learner(support), support_labels))
        loss = F.cross_entropy(learner(query, support=support), query_labels)

    With the norm policy ``support``, leave out ``support=`` and the queries are normalised with their own
    statistics: the transductive setting of learn2learn's examples.

    Raises:
        InputError: if the encoder has no ``feature_size``, or ``way`` is below 2.
    """
    size = getattr(encoder, "feature_size", None)
    if not isinstance(size, int):
        raise InputError(
            "a linear head on the encoder's features needs their number; give "
            f"{type(encoder).__name__} an integer attribute feature_size."
        )
    if way < 2:
        raise InputError(f"way must be at least 2; received {way}.")
    like = next(encoder.parameters())
    head = nn.Linear(size, way, device=like.device, dtype=like.dtype)
    if isinstance(encoder, Encoder):
        unused = {"to_log_var"} | ({"to_mean"} if set(encoder.features) == {"backbone"} else set())
        # a shallow copy shares the parameters; its own table of parts leaves the encoder whole
        encoder = copy.copy(encoder)
        encoder._modules = {name: part for name, part in encoder._modules.items() if name not in unused}
    return EncoderClassifier(encoder, head)


class _BankPictures(Dataset[tuple[Tensor, int]]):
    """A bank as (picture float32 ``[C, H, W]`` in [0, 1], class number) pairs."""

    def __init__(self, bank: ImageBank) -> None:
        self.bank = bank
        self.labels: list[int] = bank.labels.tolist()

    def __len__(self) -> int:
        return len(self.bank)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_float(self.bank.images[index]), self.labels[index]


def taskset(bank: ImageBank, way: int, shot: int, query: int, num_tasks: int = -1) -> Any:
    """The bank as a ``learn2learn.data.Taskset``.

    A task is ``(pictures [N * (K + Q), C, H, W] in [0, 1], labels [N * (K + Q)])``, the pictures of a class
    beside each other and the labels 0 to N - 1 in an order drawn per task. Take its support and query apart
    by label: `batches_from_taskset` does. Tasks are drawn from Python's ``random``: seed that.

    Args:
        way, shot, query: classes per task, and pictures per class; classes with fewer than ``shot + query``
            are left out.
        num_tasks: how many different tasks; -1 for a fresh one each time, without end.

    Raises:
        InputError: if the bank has too few classes of enough pictures, ``num_tasks`` is neither positive nor
            -1, or learn2learn is not installed.
    """
    if num_tasks < 1 and num_tasks != -1:
        raise InputError(f"num_tasks must be positive, or -1 for tasks without end; received {num_tasks}.")
    eligible = EpisodeSampler(bank, Episodes(EpisodeShape(way, shot, query))).spans[:, 2].tolist()
    l2l = require_learn2learn()
    offsets = bank.offsets.tolist()
    # given the table, learn2learn does not read every picture to make it
    members = {number: list(range(offsets[number], offsets[number + 1])) for number in eligible}
    dataset = l2l.data.MetaDataset(_BankPictures(bank), labels_to_indices=members)
    transforms = l2l.data.transforms
    return l2l.data.Taskset(
        dataset,
        [
            transforms.NWays(dataset, n=way),
            transforms.KShots(dataset, k=shot + query),
            transforms.LoadData(dataset),
            transforms.RemapLabels(dataset),
            transforms.ConsecutiveLabels(dataset),
        ],
        num_tasks=num_tasks,
    )


def batches_from_taskset(taskset: Iterable[tuple[Tensor, Tensor]], shot: int, tasks: int) -> Iterator[EpisodeBatch]:
    """learn2learn's tasks as our batches: in order, once, or without end if the taskset has none.

    Support and query are split within each label, the first ``shot`` pictures of each being support: in
    whatever order a task's pictures come, no class has more shots than another.

    Args:
        taskset: a ``learn2learn.data.Taskset``, or anything that iterates over (pictures ``[M, C, H, W]``,
            uint8 or float in [0, 1]; labels ``[M]``).
        shot: K; the pictures left over in each class are its queries.
        tasks: T, tasks per batch; the last batch has what is left.

    Returns:
        batches whose ``classes`` are the task's labels in ascending order, and whose ``indices`` are the
        pictures' positions within their task, as a task does not say where they came from.

    Raises:
        InputError: at once, if ``shot`` or ``tasks`` is below 1; at a task whose classes have unequal
            numbers of pictures or no query left, whose floats lie outside [0, 1], or whose shape is not that
            of the batch's other tasks.
    """
    for name, value in (("shot", shot), ("tasks", tasks)):
        if value < 1:
            raise InputError(f"{name} must be at least 1; received {value}.")
    return _batches(taskset, shot, tasks)


def _batches(taskset: Iterable[tuple[Tensor, Tensor]], shot: int, tasks: int) -> Iterator[EpisodeBatch]:
    held: list[tuple[Tensor, Tensor, Tensor]] = []
    for images, labels in taskset:
        task = _by_class(images, labels, shot)
        if held and task[0].shape != held[0][0].shape:
            raise InputError(
                f"tasks of one batch must have one shape [N, K + Q, C, H, W]; received "
                f"{list(task[0].shape)} after {list(held[0][0].shape)}. Use tasks = 1."
            )
        held.append(task)
        if len(held) == tasks:
            yield _stack(held, shot)
            held = []
    if held:
        yield _stack(held, shot)


def _by_class(images: Tensor, labels: Tensor, shot: int) -> tuple[Tensor, Tensor, Tensor]:
    """One task as pictures ``[N, K + Q, C, H, W]``, labels ``[N]`` and positions ``[N, K + Q]``."""
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise InputError(
            f"a task must be pictures [M, C, H, W] and labels [M]; received {list(images.shape)} and "
            f"{list(labels.shape)}."
        )
    classes, counts = labels.unique(return_counts=True)
    each = int(counts[0])
    if bool((counts != each).any()) or each <= shot:
        found = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        raise InputError(
            f"each class of a task needs {shot} support pictures and as many queries as any other; "
            f"received {found} pictures per label."
        )
    if images.dtype == torch.uint8:
        images = to_float(images)
    elif bool((images < 0).any() or (images > 1).any()):
        raise InputError(
            f"pictures must be uint8, or floats in [0, 1]; received {images.dtype} from "
            f"{float(images.min()):g} to {float(images.max()):g}. Divide by 255, or leave out the data set's "
            "own normalisation."
        )
    # a stable sort keeps the pictures of a class in the task's order
    order = labels.argsort(stable=True).view(len(classes), each)
    return images[order].float(), classes, order


def _stack(tasks: list[tuple[Tensor, Tensor, Tensor]], shot: int) -> EpisodeBatch:
    images, classes, indices = (torch.stack(part) for part in zip(*tasks, strict=True))
    return EpisodeBatch(images, shot, classes, indices)
