"""Small MAML learners in float64, episodes for them, and their outer gradients by autograd and by differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from episodes import EpisodeBatch
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.learners import Learner, make_learner
from metagvae.learners.maml import MAML

WAY, SHOT, QUERY, TASKS, SIZE = 3, 2, 2, 2, 16


def make_encoder(norm: str, features: str = "latent", width: int = 4) -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(width=width, size=SIZE, latent=5, norm=norm, features=[features])
    encoder = Encoder(config).double()
    with torch.no_grad():
        for parameter in encoder.parameters():  # affine weights away from 1 and 0, so that they matter
            parameter.add_(0.1 * torch.randn_like(parameter))
        for buffer in filter(torch.is_floating_point, encoder.buffers()):
            buffer.add_(0.1 * torch.rand_like(buffer))
    return encoder


def make_maml(norm: str, **options: object) -> MAML:
    learner = make_learner("maml", make_encoder(norm), WAY, **{"inner_lr": 0.4, **options}).double()
    assert isinstance(learner, MAML)
    if learner.options.head == "learnt":
        with torch.no_grad():
            torch.manual_seed(1)
            learner.head.weight.normal_(0, 0.5)
    return learner


def make_episodes(dtype: torch.dtype = torch.float64) -> EpisodeBatch:
    generator = torch.Generator().manual_seed(2)
    prototypes = torch.rand(TASKS, WAY, 1, 1, SIZE, SIZE, generator=generator)
    noise = torch.rand(TASKS, WAY, SHOT + QUERY, 1, SIZE, SIZE, generator=generator)
    images = (0.7 * prototypes + 0.3 * noise).to(dtype)
    return EpisodeBatch(images, SHOT, torch.zeros(TASKS, WAY), torch.zeros(TASKS, WAY, SHOT + QUERY))


def outer_gradient(learner: Learner, batch: EpisodeBatch) -> dict[str, Tensor]:
    learner.zero_grad()
    learner(batch)[0].backward()
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest absolute difference by the largest entry."""
    assert first.keys() == second.keys()
    largest = max(float(value.abs().max()) for value in first.values())
    return max(float((first[name] - second[name]).abs().max()) for name in first) / largest


def directional(
    learner: Learner, loss: Callable[[], Tensor], gradient: dict[str, Tensor], seed: int, width: float = 1e-6
) -> tuple[float, float]:
    """A central difference of ``loss()`` along a random direction, and what ``gradient`` says of it."""
    generator = torch.Generator().manual_seed(seed)
    direction = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.requires_grad
        for name, p in learner.named_parameters()
    }
    said = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
    # a step that crosses few kinks of ReLU and max pooling, and leaves ten digits of the difference
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for name, parameter in learner.named_parameters():
                parameter.add_(sign * width * direction[name])
            values.append(float(loss()))
        for name, parameter in learner.named_parameters():
            parameter.add_(width * direction[name])
    return (values[0] - values[1]) / (2 * width), said
