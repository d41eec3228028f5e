"""Pose of an image from its moments: which affine motion took a reference image to it. No model is asked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

POSES = ("rotation", "width", "height", "shear", "right", "down")
UNITS = {"rotation": "degrees", "width": "%", "height": "%", "shear": "%", "right": "px", "down": "px"}
REACH = math.radians(60)  # a letter that is like itself after half a turn is taken for the nearer one
PAPER = 0.1  # as bright as this is no ink: faint grey far from a letter would rule its higher moments
_ANGLES = 241
# whitened complex moments (p, q): a turn by t multiplies them by exp(i (p - q) t)
_MOMENTS = ((2, 1), (3, 0), (3, 1), (4, 0))


def pose(images: Tensor, references: Tensor) -> Tensor:
    """Six numbers of the motion that takes each reference to its image, ``[B, 6]`` in the order of `POSES`.

    The ink's first and second moments give the motion up to a turn (Heikkilä, Pattern Recognition 2004); the turn is
    the one under which moments of third and fourth order agree best. The motion is then split into rotation * shear *
    size, as `episodes.augment.affine_matrix` composes it, about the middle of the image.

    Args:
        images, references: ``[B, C, H, W]`` in [0, 1], ink bright.

    Returns:
        Degrees (counter-clockwise), percent of width and of height, tangent of the shear in percent, and pixels to the
        right and down. An image without ink gives what is not a number.
    """
    here, there = _Moments(references), _Moments(images)
    turn = _turn(here, there)
    cos, sin = turn.cos(), turn.sin()
    rotation = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    motion = there.root @ rotation @ here.inverse
    (a, b), (c, d) = (row.unbind(-1) for row in motion.unbind(-2))
    wide = torch.hypot(a, c)
    cos, sin = a / wide, c / wide
    high = cos * d - sin * b
    shift = there.centre - (motion @ here.centre.unsqueeze(-1)).squeeze(-1)
    columns = (
        -torch.atan2(sin, cos).rad2deg(),  # y points down
        100 * (wide - 1),
        100 * (high - 1),
        100 * (cos * b + sin * d) / high,
        *shift.unbind(-1),
    )
    return torch.stack(columns, -1).float()


class _Moments:
    """Centre (pixels from the middle), square root of the covariance and its inverse, and whitened moments."""

    def __init__(self, images: Tensor) -> None:
        ink = (images.double().mean(1) - PAPER).clamp(min=0)
        height, width = ink.shape[-2:]
        x = (torch.arange(width, device=ink.device) - (width - 1) / 2).double().expand(height, width)
        y = (torch.arange(height, device=ink.device) - (height - 1) / 2).double()[:, None].expand(height, width)
        places = torch.stack((x, y), -1).flatten(0, 1)  # [pixels, 2]
        share = ink.flatten(1) / ink.flatten(1).sum(1, keepdim=True)
        self.centre = share @ places
        offsets = places - self.centre[:, None]
        covariance = torch.einsum("bp,bpi,bpj->bij", share, offsets, offsets)
        sick = ~torch.isfinite(covariance).all(-1).all(-1)
        safe = torch.where(sick[:, None, None], torch.eye(2, dtype=covariance.dtype), covariance)
        values, vectors = torch.linalg.eigh(safe)
        roots = values.clamp(min=1e-9).sqrt()
        nothing = torch.where(sick, torch.nan, 1.0)[:, None, None].to(roots)
        self.root = vectors @ torch.diag_embed(roots) @ vectors.mT * nothing
        self.inverse = vectors @ torch.diag_embed(1 / roots) @ vectors.mT * nothing
        white = torch.view_as_complex((offsets @ torch.nan_to_num(self.inverse)).contiguous())
        weights = share.nan_to_num().to(white.dtype)
        self.white = torch.stack([(weights * white**p * white.conj() ** q).sum(1) for p, q in _MOMENTS], -1)


def _turn(here: _Moments, there: _Moments) -> Tensor:
    """The angle ``[B]`` in radians by which the whitened reference must be turned, within `REACH`."""
    cross = there.white * here.white.conj()  # [B, moments]
    orders = torch.tensor([p - q for p, q in _MOMENTS], dtype=torch.float64, device=cross.device)

    def agreement(angles: Tensor) -> Tensor:
        """``[B, n]`` for angles ``[B or 1, n]``."""
        return (cross[:, None] * torch.exp(-1j * orders * angles[..., None])).real.sum(-1)

    grid = torch.linspace(-REACH, REACH, _ANGLES, dtype=torch.float64, device=cross.device)
    best = grid[agreement(grid[None]).argmax(1)]
    step = float(grid[1] - grid[0])
    for _ in range(30):  # the maximum lies within a step of the best of the grid
        around = best[:, None] + step * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, device=cross.device)
        best = around.gather(1, agreement(around).argmax(1, keepdim=True)).squeeze(1)
        step *= 0.6
    return best
