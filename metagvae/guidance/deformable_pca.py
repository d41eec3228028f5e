"""Unsupervised guidance: deformable PCA (Ding et al., CVPR 2020, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.augment import affine_matrix, resample, sampling_grid
from episodes.precision import autocast_off
from metagvae.encoders.norm import full_precision
from metagvae.encoders.units import Units
from metagvae.guidance.base import GUIDANCES, Deformation, Guidance, GuidanceContext, GuidanceInputs
from metagvae.guidance.spatial_transformer import SpatialTransformer

# transform -> (its parameters, the value of each at one prior standard deviation)
TRANSFORMS: dict[str, tuple[int, float]] = {
    "rotation": (1, 0.25),  # radians
    "scale": (2, 0.2),  # logarithm of the size, per axis
    "shear": (1, 0.25),  # tangent
    "translation": (2, 0.15),  # half sides
}
# of a transform with several parameters, what each does
_PARTS = {"scale": ("width", "height"), "translation": ("right", "down")}


@GUIDANCES.register
class DeformablePCA(Guidance):
    """A light decoder that must rebuild each picture as a few principal components under an affine warp.

        L = E_q || x - tau(z_geometry) o (z_content B^T + m) ||^2
            + orthogonality * sum_{j != k} (b_j^T b_k)^2  [+ unit_norm * sum_k (b_k^T b_k - 1)^2]

    z_content is every unit but the geometry, those of other guidances among them.
    The error is a sum over a picture and a mean over the batch, and the terms on B are not scaled by the
    batch, so their balance does not depend on its size. B, the mean picture m and the gains of the warp are
    the decoder's parameters. tau is the identity at z_geometry = 0 (and everywhere, were its gains zero); the
    linear picture is resampled once.

    Args:
        transforms: which of `TRANSFORMS` the warp is made of; each takes one latent unit per parameter.
        weight: lambda, multiplies all of L.
        orthogonality, unit_norm: multiply the terms on B inside it.
        likelihood: ``gaussian`` (squared error, as the paper writes it) or ``bernoulli`` (cross entropy of a
            sigmoid, as its authors' code has it).
        limits: by transform, the most that each of its gains may become, such as ``{scale: 0.11}``: what a unit does
            at one standard deviation of the prior, in the units of `TRANSFORMS`. Without one a gain becomes what the
            training pictures ask for.
        main_decoder: apply tau to the main decoder too, which then draws from the other units alone
            (`SpatialTransformer`); without it, only the light decoder's picture is warped.

    Example:
        >>> from metagvae.guidance import DeformablePCA, GuidanceContext, assign_units
        >>> spec = {"name": "deformable_pca"}
        >>> units = assign_units([spec], latent=16)
        >>> context = GuidanceContext(channels=1, size=28, units=units)
        >>> guidance = DeformablePCA(context)
        >>> {group: len(numbers) for group, numbers in units.items()}
        {'geometry': 6, 'content': 10}
    """

    name = "deformable_pca"
    same: Tensor  # whether two components are one
    limits: Tensor  # of each gain; infinite without one

    def __init__(
        self,
        context: GuidanceContext,
        transforms: Sequence[str] = ("rotation", "scale", "shear", "translation"),
        weight: float = 1.0,
        orthogonality: float = 1.0,
        unit_norm: float = 0.0,
        likelihood: str = "gaussian",
        main_decoder: bool = False,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if likelihood not in ("gaussian", "bernoulli"):
            raise InputError(f"deformable_pca's likelihood must be 'gaussian' or 'bernoulli'; received {likelihood!r}.")
        if min(weight, orthogonality, unit_norm) < 0:
            raise InputError(
                f"deformable_pca needs weights >= 0; received weight {weight}, orthogonality {orthogonality} and "
                f"unit_norm {unit_norm}."
            )
        self.transforms = tuple(transforms)
        self.weight, self.orthogonality, self.unit_norm = weight, orthogonality, unit_norm
        self.likelihood, self.main_decoder = likelihood, main_decoder
        self.shape = (context.channels, context.size, context.size)
        geometry = context.units["geometry"]
        self.geometry = geometry
        self.content = [unit for unit in range(context.latent) if unit not in set(geometry)]
        self.of_geometry, self.of_content = Units(self.geometry), Units(self.content)
        pixels = context.channels * context.size**2
        # made on the CPU even in a sketch on "meta", whose kernels would import torch's compiler first, for a second
        same = torch.eye(len(self.content), dtype=torch.bool, device="cpu")
        self.register_buffer("same", same, persistent=False)
        self.components = nn.Linear(len(self.content), pixels)
        unit_length = torch.empty(pixels, len(self.content), device="cpu").normal_(std=pixels**-0.5)
        with torch.no_grad():
            self.components.weight.copy_(unit_length)  # near orthogonal
        nn.init.zeros_(self.components.bias)
        spreads = [spread for name in self.transforms for spread in [TRANSFORMS[name][1]] * TRANSFORMS[name][0]]
        self.gains = nn.Parameter(torch.tensor(spreads))
        limits = dict(limits or {})
        wrong = [f"{name}: {most}" for name, most in limits.items() if name not in self.transforms or not most > 0]
        if wrong:
            raise InputError(
                f"deformable_pca's limits are numbers above 0 of some of its transforms {', '.join(self.transforms)}; "
                f"received {wrong[0]}."
            )
        each = [limits.get(name, math.inf) for name in self.transforms for _ in range(TRANSFORMS[name][0])]
        self.register_buffer("limits", torch.tensor(each, device="cpu"), persistent=False)
        self.limited = bool(limits)

    @classmethod
    def owned_units(cls, transforms: Sequence[str] = tuple(TRANSFORMS), **options: Any) -> dict[str, int]:
        unknown = [name for name in transforms if name not in TRANSFORMS]
        if unknown or not transforms or len(set(transforms)) < len(transforms):
            raise InputError(
                f"deformable_pca's transforms must be some of {', '.join(TRANSFORMS)}, each once; "
                f"received {list(transforms)}."
            )
        return {"geometry": sum(TRANSFORMS[name][0] for name in transforms)}

    def reached(self) -> Tensor:
        """Gains within their limits, ``[geometry]``: what each unit does at one standard deviation of the prior."""
        if not self.limited:
            return self.gains
        free = self.limits.isinf()
        most = self.limits.masked_fill(free, 1.0)  # else the branch not taken, and its gradient, were not a number
        return torch.where(free, self.gains, most * torch.tanh(self.gains / most))

    def warp(self, z_geometry: Tensor) -> Tensor:
        """The sampling matrix ``[B, 2, 3]`` of tau for geometry units ``[B, geometry]``."""
        sizes = [TRANSFORMS[name][0] for name in self.transforms]
        named = dict(zip(self.transforms, (z_geometry * self.reached()).split(sizes, -1), strict=True))
        one = z_geometry.new_zeros(len(z_geometry), 1)
        two = one.expand(-1, 2)
        # the exponential of a scale and the shift are kept within what leaves ink in the picture
        scale = 1.5 * torch.tanh(named["scale"] / 1.5) if "scale" in named else two
        shift = torch.tanh(named["translation"]) if "translation" in named else two
        angle, shear = named.get("rotation", one).squeeze(-1), named.get("shear", one).squeeze(-1)
        log_x, log_y = scale.unbind(-1)
        return affine_matrix(angle, log_x, log_y, shear, shift)

    def canonical(self, z_content: Tensor) -> Tensor:
        """The linear picture ``[B, C, H, W]`` before the warp (logits for the Bernoulli likelihood)."""
        return full_precision(self.components(z_content)).view(-1, *self.shape)

    def light_decoder(self, z: Tensor) -> Tensor:
        """The warped linear picture ``[B, C, H, W]`` of latents ``[B, latent]``."""
        picture = self.canonical(self.of_content(z))
        grid = sampling_grid(self.warp(full_precision(self.of_geometry(z))), picture.shape)
        return resample(picture, grid)

    def around(self, decoder: nn.Module) -> nn.Module:
        if not self.main_decoder:
            return decoder
        return SpatialTransformer(decoder, self.geometry, len(self.geometry) + len(self.content), self.warp)

    def unit_names(self) -> dict[int, str]:
        words = [word for name in self.transforms for word in _PARTS.get(name, (name,) * TRANSFORMS[name][0])]
        return {unit: f"geometry: {word}" for unit, word in zip(self.geometry, words, strict=True)}

    def deformation(self, z: Tensor) -> Deformation:
        linear, warped = self.canonical(self.of_content(z)), self.light_decoder(z)
        if self.likelihood == "bernoulli":
            linear, warped = linear.sigmoid(), warped.sigmoid()
        matrices = self.warp(full_precision(self.of_geometry(z)))
        return Deformation(linear, warped, matrices, self.transforms, len(self.geometry), len(self.content))

    def basis_terms(self) -> dict[str, Tensor]:
        """The two penalties on B, unweighted: sums over pairs of components and over components."""
        basis = self.components.weight
        # the first is a small difference of large sums: bfloat16 would round it away
        with autocast_off(basis):
            gram = basis.T @ basis
        return {
            "orthogonality": gram.masked_fill(self.same, 0).square().sum(),
            "unit_norm": (gram.diagonal() - 1).square().sum(),
        }

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        picture = self.light_decoder(inputs.z)
        if self.likelihood == "gaussian":
            error = F.mse_loss(picture, inputs.images, reduction="sum")
        else:
            error = F.binary_cross_entropy_with_logits(picture, inputs.images, reduction="sum")
        basis = self.basis_terms()
        terms = {
            "reconstruction": self.weight * error / len(inputs.images),
            "orthogonality": self.weight * self.orthogonality * basis["orthogonality"],
        }
        if self.unit_norm:
            terms["unit_norm"] = self.weight * self.unit_norm * basis["unit_norm"]
        return terms
