"""Prototypical network (Snell, Swersky & Zemel, NeurIPS 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from metagvae.learners.base import LEARNERS, FeatureLearner, shortened


@LEARNERS.register
class PrototypicalNetwork(FeatureLearner):
    """A query's logits are its nearness to the mean feature of each way.

    Args:
        encoder: pictures to features.
        distance: ``euclidean``, minus the squared distance (eq. 1 of the paper), or ``cosine``, the cosine
            times a learnt positive scale (Gidaris & Komodakis, CVPR 2018).
        scale: multiplies the logits; learnt for ``cosine``, fixed for ``euclidean``.
        normalise: in [0, 1], for ``euclidean``: each feature z is taken as z / |z|^normalise, before the means. 0
            leaves it, 1 gives it length 1; between, for features whose angle says more than their length.
        roles: see `FeatureLearner`.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> from metagvae.learners import PrototypicalNetwork
        >>> learner = PrototypicalNetwork(Encoder(EncoderConfig(width=8, latent=6))).eval()
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 28, 28)), torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    name = "prototypes"

    def __init__(
        self,
        encoder: nn.Module,
        distance: str = "euclidean",
        scale: float | None = None,
        normalise: float = 0.0,
        roles: str = "given",
    ) -> None:
        super().__init__(encoder, roles)
        if distance not in ("euclidean", "cosine"):
            raise InputError(f"prototypes' distance must be 'euclidean' or 'cosine'; received {distance!r}.")
        if scale is not None and scale <= 0:
            raise InputError(f"prototypes' scale must be positive; received {scale}.")
        if not 0 <= normalise <= 1 or (normalise and distance == "cosine"):
            raise InputError(
                "prototypes' normalise must be in [0, 1], and 0 with the distance 'cosine', which sees no lengths; "
                f"received {normalise} with {distance!r}."
            )
        self.distance, self.normalise = distance, normalise
        if distance == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(math.log(scale or 10.0)))
        else:
            self.scale = scale or 1.0

    def fit_head(self, support: Tensor) -> Tensor:
        """Prototypes ``[T, N, D]``."""
        return shortened(support, self.normalise).mean(2)

    def ask_head(self, state: Tensor, query: Tensor) -> Tensor:
        flat = shortened(query.flatten(1, 2), self.normalise)
        if self.distance == "cosine":
            flat, state = F.normalize(flat, dim=-1), F.normalize(state, dim=-1)
            return self.log_scale.exp() * flat @ state.transpose(1, 2)
        # |q|^2 is the same for every way, so leaving it out changes no probability; keep it: logits are distances
        dots = torch.baddbmm(flat.square().sum(-1, keepdim=True), flat, state.transpose(1, 2), alpha=-2)
        return -self.scale * (dots + state.square().sum(-1).unsqueeze(1))
