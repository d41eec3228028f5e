"""Batched augmentation, on the device that holds the images.

Every picture gets its own draw from torch's generator of that device; the loops seed that generator from
(seed, step), so a step's augmentation is a pure function of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of each random change; all zero means none.

    Args:
        rotation: largest angle in degrees.
        scale: largest relative change of size, per axis.
        shear: largest shear (tangent of the angle).
        translation: largest shift, as a fraction of the picture's side.
        elastic: largest local displacement, as a fraction of the side; smooth over a quarter of it.
        flip: chance of a mirror image.
        brightness: largest relative change of brightness and contrast.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0

    @property
    def warps(self) -> bool:
        return any((self.rotation, self.scale, self.shear, self.translation, self.elastic, self.flip))


def affine_matrix(angle: Tensor, log_x: Tensor, log_y: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """The ``[B, 2, 3]`` matrix for `torch.nn.functional.affine_grid`: rotation * shear * scale, then shift.

    Args:
        angle: ``[B]`` radians, counter-clockwise as the picture is seen.
        log_x, log_y: ``[B]`` logarithms of the size along each axis; positive makes the picture larger.
        shear: ``[B]`` tangent of the shear along x.
        shift: ``[B, 2]`` in half sides: (right, down).

    All zeros give the identity. The grid maps output to input positions, so the matrix is the inverse of
    the motion that the picture makes.
    """
    cos, sin = angle.cos(), angle.sin()
    # motion M = R(angle) S(shear) D(scale); its inverse is D^-1 S^-1 R^-1
    ix, iy = (-log_x).exp(), (-log_y).exp()
    # image y points down, so a counter-clockwise turn has its sines with the signs below
    r00, r01, r10, r11 = cos, -sin, sin, cos
    m00 = ix * (r00 - shear * r10)
    m01 = ix * (r01 - shear * r11)
    m10 = iy * r10
    m11 = iy * r11
    tx, ty = shift.unbind(-1)
    column = torch.stack((-(m00 * tx + m01 * ty), -(m10 * tx + m11 * ty)), -1)
    linear = torch.stack((torch.stack((m00, m01), -1), torch.stack((m10, m11), -1)), -2)
    return torch.cat((linear, column.unsqueeze(-1)), -1)


def _symmetric(like: Tensor, limit: float, *shape: int) -> Tensor:
    return (torch.rand(*shape, device=like.device) * 2 - 1) * limit


def augment(images: Tensor, config: AugmentConfig) -> Tensor:
    """Change each picture by its own draw.

    Args:
        images: float ``[..., C, H, W]`` in [0, 1].

    Returns:
        The same shape, in [0, 1]. What a warp brings in from outside takes the border's values.
    """
    shape = images.shape
    flat = images.reshape(-1, *shape[-3:])
    count = len(flat)
    if config.warps:
        mirrored = torch.rand(count, device=flat.device) < config.flip
        theta = affine_matrix(
            _symmetric(flat, math.radians(config.rotation), count),
            _symmetric(flat, math.log1p(config.scale), count),
            _symmetric(flat, math.log1p(config.scale), count),
            _symmetric(flat, config.shear, count),
            _symmetric(flat, 2 * config.translation, count, 2),
        )
        mirror = torch.where(mirrored, -1.0, 1.0)[:, None]
        theta = torch.cat((theta[:, :1] * mirror.unsqueeze(-1), theta[:, 1:]), 1)
        grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
        if config.elastic:
            coarse = _symmetric(flat, 2 * config.elastic, count, 2, 4, 4)
            field = F.interpolate(coarse, shape[-2:], mode="bicubic", align_corners=False)
            grid = grid + field.permute(0, 2, 3, 1)
        flat = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    if config.brightness:
        gain = 1 + _symmetric(flat, config.brightness, count, 1, 1, 1)
        offset = _symmetric(flat, config.brightness, count, 1, 1, 1)
        flat = (flat * gain + offset).clamp(0, 1)
    return flat.view(shape)
