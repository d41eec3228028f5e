"""Capture: how ink on paper comes into a file. Another pen, another frame, few pixels, blur, noise.

A user's pictures are not drawn as a data set's are: strokes are thicker, the ink fills the frame or sits in a corner,
an 8 x 8 picture is enlarged to the encoder's size. All of this is drawn here, batched over the pictures. Framing, blur
and resolution act on rows and columns apart, so each is one matrix per axis and picture, and a chain of them a product.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.batch_share import uniform
from episodes.errors import InputError
from episodes.precision import autocast_off
from episodes.ranges import check_range

_DRAWS = 13
_INK = 0.25  # brightness from which a pixel counts as ink, where its box is looked for
_ZOOM = 2.5  # at most: a dot stays a dot


@dataclass(frozen=True)
class CaptureConfig:
    """How far pictures of bright ink on black may be from their drawing; all zero means not at all.

    Args:
        fit: chance that a picture is framed by its ink: the ink's box fills the side but for a margin.
        margin: largest margin of a framed picture on each side, as a fraction of the side.
        offset: how far a framed picture may lie off the middle, as a fraction of what room the margin leaves; it
            may be 1.
        pen: largest spread of the ink, as a fraction of the side. Spread ink is as bright as before, so strokes grow.
        resolution: smallest side in pixels that a picture is reduced to before it is enlarged again; 0 for none.
        blur: largest standard deviation of a Gaussian blur, as a fraction of the side.
        contrast: largest share of brightness lost by ink, and half of it the largest gained by paper.
        noise: largest standard deviation of the noise added to each pixel.
        together: in [0, 1], how much of its draw an episode's pictures share: 1 for one pen, frame and camera per
            episode, 0 for one per picture.

    Example:
        >>> import torch
        >>> from episodes import AugmentConfig, CaptureConfig, augment
        >>> photographed = AugmentConfig(capture=CaptureConfig(fit=0.5, margin=0.2, blur=0.03))
        >>> augment(torch.rand(4, 1, 28, 28), photographed).shape
        torch.Size([4, 1, 28, 28])
    """

    fit: float = 0.0
    margin: float = 0.0
    offset: float = 0.0
    pen: float = 0.0
    resolution: int = 0
    blur: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    together: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            largest = {"resolution": math.inf, "margin": 0.45, "pen": 0.5, "blur": 0.5}.get(name, 1)
            check_range(f"augment.capture.{name}", value, largest)


def frame_matrix(scale: Tensor, centre: Tensor, place: Tensor, side: int) -> Tensor:
    """``[B, side, side]``: along one axis, what lay at ``centre`` comes to lie at ``place``, ``scale`` times as large.

    Linear interpolation, with a wider kernel where the picture shrinks; outside of the picture is black.

    Args:
        scale: ``[B]``, positive.
        centre, place: ``[B]``, in pixels from the picture's edge.
    """
    pixels = torch.arange(side, device=scale.device) + 0.5
    source = (pixels - place[:, None]) / scale[:, None] + centre[:, None]
    narrow = scale.clamp(max=1)[:, None, None]
    return (1 - (source[:, :, None] - pixels).abs() * narrow).clamp(min=0) * narrow


def blur_matrix(sigma: Tensor, side: int) -> Tensor:
    """``[B, side, side]``: Gaussian blur along one axis; outside of the picture is black.

    Args:
        sigma: ``[B]``, standard deviation in pixels; 0 leaves the picture as it is.
    """
    steps = torch.arange(-side, side + 1, device=sigma.device)
    width = sigma.clamp(min=1e-3)[:, None]
    kernel = (-0.5 * (steps / width).square()).exp()
    pixels = torch.arange(side, device=sigma.device)
    return (kernel / kernel.sum(1, keepdim=True))[:, pixels[:, None] - pixels + side]


@cache
def _resolutions(side: int, device: torch.device) -> Tensor:
    """``[side + 1, side, side]``: matrix r reduces to r pixels and enlarges again; 0 and ``side`` change nothing."""
    eye = torch.eye(side)[None, None]
    found = [eye[0, 0]]
    for small in range(1, side):
        # the identity's rows are unit pictures of one axis; the other axis is left as it is
        less = F.interpolate(eye, (small, side), mode="bilinear", antialias=True, align_corners=False)
        found.append(F.interpolate(less, (side, side), mode="bilinear", align_corners=False)[0, 0])
    return torch.stack([*found, eye[0, 0]]).to(device)


def resolution_matrix(pixels: Tensor, side: int) -> Tensor:
    """``[B, side, side]``: along one axis, reduced to ``pixels`` (int64 ``[B]``, at most ``side``) and enlarged."""
    return _resolutions(side, pixels.device)[pixels]


def ink_box(ink: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the ink of each picture lies.

    Args:
        ink: ``[B, H, W]``.

    Returns:
        The middle of its box ``[B, 2]`` (down, right), the box's longer side ``[B]``, and the ink's centre of mass
        ``[B, 2]``, in pixels; the whole picture's where there is no ink.
    """
    middles, extents, masses = [], [], []
    for axis in (2, 1):
        profile, mass = ink.amax(axis), ink.sum(axis)
        side = profile.shape[1]
        steps = torch.arange(side, device=ink.device, dtype=ink.dtype)
        hit = profile > _INK
        hit = hit | ~hit.any(1, keepdim=True)
        low = steps.masked_fill(~hit, side).amin(1)
        high = (steps + 1).masked_fill(~hit, 0).amax(1)
        middles.append((low + high) / 2)
        extents.append(high - low)
        total = mass.sum(1)
        centre = (mass * (steps + 0.5)).sum(1) / total.clamp(min=1e-6)
        masses.append(centre.masked_fill(~(total > 0), side / 2))
    return torch.stack(middles, 1), torch.maximum(*extents), torch.stack(masses, 1)


def _along(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """``[B, C, H, W]`` with ``rows`` and ``columns`` ``[B, side, side]`` applied along the two axes."""
    return rows[:, None] @ images @ columns[:, None].transpose(-1, -2)


def _drawn(images: Tensor, config: CaptureConfig, generator: torch.Generator | None) -> Tensor:
    """`_DRAWS` numbers in [0, 1) per picture, ``[B, _DRAWS]``, those of an episode as alike as ``together`` says."""
    count, device = images[..., 0, 0, 0].numel(), images.device
    own = uniform(count, _DRAWS, device=device, generator=generator)
    if images.ndim < 6 or not config.together:
        return own
    tasks = len(images)
    shared = uniform(tasks, _DRAWS, device=device, generator=generator).repeat_interleave(count // tasks, 0)
    return shared + (1 - config.together) * (own - shared)


def _framed(images: Tensor, config: CaptureConfig, u: Tensor) -> Tensor:
    """``[B, C, side, side]``, some of them framed by their ink."""
    side = images.shape[-1]
    middle, extent, mass = ink_box(images.amax(1))
    room = side * config.margin * u[:, 1]
    scale = ((side - 2 * room) / extent).clamp(max=_ZOOM)
    # of a wide margin some are centred by the ink's mass, as MNIST is, so far as that keeps all ink inside
    centre = middle.lerp(mass, u[:, 2:3] * config.margin / 0.45)
    place = side / 2 + (u[:, 3:5] * 2 - 1) * (config.offset * room)[:, None]
    rows, columns = (frame_matrix(scale, centre[:, axis], place[:, axis], side) for axis in (0, 1))
    return torch.where((u[:, 0] < config.fit)[:, None, None, None], _along(rows, images, columns), images)


def _inked(images: Tensor, config: CaptureConfig, u: Tensor) -> Tensor:
    """The same by another pen: spread by a blur, ink from some brightness on, and full ink from another."""
    spread = blur_matrix(u[:, 5] * config.pen * images.shape[-1], images.shape[-1])
    wet = _along(spread, images, spread)
    full = wet.amax((1, 2, 3), keepdim=True).clamp(min=1e-6) * (1 - 0.7 * u[:, 6, None, None, None])
    empty = full * 0.7 * u[:, 7, None, None, None]
    return ((wet - empty) / (full - empty)).clamp(0, 1)


def _seen(images: Tensor, config: CaptureConfig, u: Tensor) -> Tensor:
    """The same through a lens that blurs and onto few pixels, enlarged again."""
    side = images.shape[-1]
    lens = blur_matrix(u[:, 8] * config.blur * side, side)
    if config.resolution:
        least = min(config.resolution, side)
        lens = resolution_matrix((least * (side / least) ** u[:, 9]).round().long(), side) @ lens
    return _along(lens, images, lens)


def _normal(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of the pictures' shape, by Box and Muller: `uniform` knows of shared batches."""
    first, second = uniform(len(images), 2, *images.shape[1:], device=images.device, generator=generator).unbind(1)
    return (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()


def capture(images: Tensor, config: CaptureConfig, generator: torch.Generator | None = None) -> Tensor:
    """Pictures as another pen, frame and camera would have made them.

    Args:
        images: float ``[..., C, side, side]`` in [0, 1], bright ink on black. Of ``[T, N, K, C, side, side]`` the
            first axis are episodes.
        generator: to draw from, as in `episodes.augment.warp`.
    """
    shape, side = images.shape, images.shape[-1]
    if shape[-2] != side:
        raise InputError(f"augment.capture takes square pictures; received {list(shape)}.")
    u = _drawn(images, config, generator)
    flat = images.reshape(-1, *shape[-3:])
    with autocast_off(images):  # pictures have 8 bits, and bfloat16's numbers as many
        if config.fit:
            flat = _framed(flat, config, u)
        if config.pen:
            flat = _inked(flat, config, u)
        if config.blur or config.resolution:
            flat = _seen(flat, config, u)
    if config.contrast:
        paper = 0.5 * config.contrast * u[:, 10, None, None, None]
        ink = 1 - config.contrast * u[:, 11, None, None, None]
        flat = paper + (ink - paper) * flat
    if config.noise:
        flat = flat + config.noise * u[:, 12, None, None, None] * _normal(flat, generator)
    return flat.clamp(0, 1).view(shape)
