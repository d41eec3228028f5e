"""The loss terms of a step of episodes: of the learner, its teacher, and in mode guided the VAE and its guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from episodes import EpisodeBatch, ImageBank, to_float, warp
from metagvae.compute.device import Device
from metagvae.config.sections import TrainConfig
from metagvae.guidance import Views
from metagvae.learners.base import FeatureLearner
from metagvae.training.step import StepInputs, as_tensor
from metagvae.training.trainee import Parts


class EpisodeTerms:
    """The loss terms of a batch of episodes; called in the device's precision, it never waits for the host.

    Args:
        bank: the labelled one, for the attributes of its classes and images.
    """

    def __init__(self, config: TrainConfig, parts: Parts, bank: ImageBank, device: Device) -> None:
        self.config, self.parts, self.device = config, parts, device
        if parts.teacher is not None:
            device.place(parts.teacher.learner)
        # beside the networks, wherever the pictures lie
        self.attributes = {name: a.values.to(device.device) for name, a in bank.attributes.items()}
        self.of_images = {name: a.values.to(device.device) for name, a in bank.image_attributes.items()}
        known = bank.factors
        if known is not None and config.data.rotations == "episode":  # unknown, as `ImageBank.with_rotations` has it
            known = replace(known, values=torch.full_like(known.values, torch.nan))
        self.factors = None if known is None else replace(known, values=known.values.to(device.device))

    def __call__(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Terms by name, of a step's ``images`` (uint8 ``[T, N, K + Q, C, H, W]``), ``classes``, ``indices`` and
        ``progress``."""
        config, vae, shot = self.config, self.parts.vae, self.config.episodes.shot
        images, classes, indices = (as_tensor(inputs[name]) for name in ("images", "classes", "indices"))
        raw = to_float(images)
        warped = warp(raw, config.augment, shared=self._class_matrices(raw))
        batch = EpisodeBatch(_laid_out(warped.images, self.device), shot, classes, indices)
        self.parts.learner.progress = inputs["progress"]
        terms = self._learner_terms(batch)
        if vae is not None and config.vae_weight:
            seen = _vae_batch(config, self.attributes, batch, raw, warped.parameters)
            if seen.rows is not None:
                rows = seen.rows
                seen.attributes.update({name: values[rows] for name, values in self.of_images.items()})
                if self.factors is not None:
                    seen.attributes.update(self.factors.columns(rows))
            shown = self.device.layout(seen.images)
            named = vae.losses(shown, seen.attributes, views=seen.views, progress=inputs["progress"])
            for name, term in named.items():
                terms[f"vae/{name}"] = config.vae_weight * term
        return terms

    def _learner_terms(self, batch: EpisodeBatch) -> dict[str, Tensor]:
        learner, teacher = self.parts.learner, self.parts.teacher
        if teacher is not None:
            assert isinstance(learner, FeatureLearner)
            return teacher.terms(learner, batch)
        loss, _ = learner(batch)
        return {"episodes": loss}

    def _class_matrices(self, images: Tensor) -> Tensor | None:
        """A motion for each class of the episodes, ``[T, N, 1, 2, 3]``, where one is asked for."""
        drawn = self.config.episodes.class_warp
        if drawn is None:
            return None
        tasks, way = images.shape[:2]
        return drawn.matrices(tasks * way, images.device).view(tasks, way, 1, 2, 3)


def _laid_out(images: Tensor, device: Device) -> Tensor:
    """``[T, N, K + Q, C, H, W]`` whose flattening to pictures is in the device's layout."""
    laid_out: Tensor = device.layout(images.flatten(0, 2)).unflatten(0, images.shape[:3])
    return laid_out


@dataclass
class _VAEBatch:
    """The part of a step that the VAE's losses see, as `GuidedVAE.losses` takes it.

    Args:
        rows: which image of the bank each is, int64 ``[B]``; None of episodes without labels.
    """

    images: Tensor
    attributes: dict[str, Tensor]
    views: Views | None
    rows: Tensor | None = None


def _vae_batch(
    config: TrainConfig, known: dict[str, Tensor], batch: EpisodeBatch, raw: Tensor, moved: Tensor
) -> _VAEBatch:
    """The pictures of the first classes of each episode, or warps of their support pictures drawn for this alone.

    Args:
        known: each class's value of the attributes, int64 ``[classes]`` by name.
        raw: the episodes' pictures before they were changed, ``[T, N, K + Q, C, H, W]``.
        moved: how they were changed, ``[T, N, K + Q, 7]``.
    """
    ways = max(2, round(config.vae_share * batch.way))
    if not config.episodes.labelled:
        warps: Views | None = None  # neighbours are other pictures, taken for the same
        if config.episodes.classes == "pictures":
            warps = Views(batch.images.shape[2], moved[:, :ways].flatten(0, 2))
        return _VAEBatch(batch.images[:, :ways].flatten(0, 2), {}, warps)
    views: Views | None = None
    if config.views > 1:
        support = raw[:, :ways, : batch.shot].flatten(0, 2).repeat_interleave(config.views, 0)
        warped = warp(support, config.augment)
        per_class, images, views = batch.shot * config.views, warped.images, Views(config.views, warped.parameters)
    else:
        per_class, images = batch.images.shape[2], batch.images[:, :ways].flatten(0, 2)
    classes = batch.classes[:, :ways].flatten().repeat_interleave(per_class)
    attributes = {name: values[classes] for name, values in known.items()}
    rows = batch.indices[:, :ways, : batch.shot if views else None].flatten()
    rows = rows.repeat_interleave(views.count if views else 1)
    return _VAEBatch(images, {"class": classes, **attributes}, views, rows)
