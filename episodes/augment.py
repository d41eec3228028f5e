"""Batched augmentation, on the device that holds the images.

Every picture gets its own draw, from torch's generator of that device unless another is given; the loops seed that
generator from (seed, step), so a step's augmentation is a pure function of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from episodes.batch_share import uniform
from episodes.capture import CaptureConfig, capture
from episodes.errors import InputError
from episodes.precision import autocast_off
from episodes.ranges import check_range

PARAMETERS = ("rotation", "scale_x", "scale_y", "shear", "shift_x", "shift_y", "stroke")
SHARES = ("stroke", "flip", "crop", "colour")


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
        stroke: in [0, 1], how far bright strokes may grow (1: by a pixel on each side) or thin (1: until a
            pixel on each side is gone); for ink on black.
        capture: the pen, frame and camera of users' own pictures, after all the others; null for none.
        crop: largest share of the sides that is cut away; a window of what is left, anywhere in the picture, fills it.
        colour: largest relative change of saturation; hues turn by up to a quarter of it, as a part of the circle. Of
            pictures of three channels.

    Example:
        >>> import torch
        >>> from episodes import AugmentConfig, augment
        >>> changed = augment(torch.rand(4, 1, 28, 28), AugmentConfig(rotation=15, translation=0.1))
        >>> changed.shape
        torch.Size([4, 1, 28, 28])
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    stroke: float = 0.0
    capture: CaptureConfig | None = None
    crop: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name != "capture"):
            check_range(f"augment.{name}", getattr(self, name), 1 if name in SHARES else math.inf)
        if self.crop == 1:
            raise InputError("augment.crop must be less than 1: nothing of the pictures would be left; received 1.")

    @property
    def warps(self) -> bool:
        return any((self.rotation, self.scale, self.shear, self.translation, self.elastic, self.flip, self.crop))


@dataclass(frozen=True)
class ClassWarp:
    """Changes drawn once for each class of an episode, alike for all its images: new classes made of known ones.

    A mirrored character is another character, and so is one that is slanted far more than any hand slants it.

    Args:
        rotation: largest angle in degrees.
        scale: largest relative change of size, per axis.
        shear: largest shear (tangent of the angle).
        flip: chance of a mirror image.

    Example:
        >>> import torch
        >>> from episodes import AugmentConfig, ClassWarp, warp
        >>> matrices = ClassWarp(rotation=30, flip=0.5).matrices(4, torch.device("cpu"))
        >>> warp(torch.rand(4, 6, 1, 28, 28), AugmentConfig(rotation=10), shared=matrices[:, None]).images.shape
        torch.Size([4, 6, 1, 28, 28])
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            check_range(f"episodes.class_warp.{name}", getattr(self, name), 1 if name in SHARES else math.inf)

    def matrices(self, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """A draw for each of ``count`` classes, ``[count, 2, 3]`` as `affine_matrix` gives them."""
        draws = uniform(count, 5, device=device, generator=generator)
        size, signed = math.log1p(self.scale), draws[:, :4] * 2 - 1
        angle, log_x, log_y, shear = signed.unbind(-1)
        turn, still = math.radians(self.rotation), torch.zeros_like(signed[:, :2])
        theta = affine_matrix(angle * turn, log_x * size, log_y * size, shear * self.shear, still)
        mirror = 1 - 2 * (draws[:, 4] < self.flip).to(theta)
        return torch.cat((theta[:, :1] * mirror[:, None, None], theta[:, 1:]), 1)


@dataclass(frozen=True)
class Warped:
    """Changed pictures and how each was changed.

    Args:
        images: float ``[..., C, H, W]`` in [0, 1].
        parameters: float ``[..., 7]`` in [-1, 1], `PARAMETERS` as fractions of their limits; zero where the
            limit is. Local displacement, mirroring, cropping, colour and brightness have no number here.

    Example:
        >>> import torch
        >>> from episodes import AugmentConfig, warp
        >>> warped = warp(torch.rand(4, 1, 28, 28), AugmentConfig(rotation=15))
        >>> warped.images.shape, warped.parameters.shape
        (torch.Size([4, 1, 28, 28]), torch.Size([4, 7]))
    """

    images: Tensor
    parameters: Tensor


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
    # motion M = R(angle) S(shear) D(scale); its inverse is D^-1 S^-1 R^-1, made row by row: few, small operations
    # image y points down, so a counter-clockwise turn has its sines with the signs below
    upper, lower = torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)
    sizes = (-torch.stack((log_x, log_y), -1)).exp()
    linear = torch.stack((upper - shear.unsqueeze(-1) * lower, lower), -2) * sizes.unsqueeze(-1)
    column = -(linear * shift.unsqueeze(-2)).sum(-1, keepdim=True)
    return torch.cat((linear, column), -1)


def sampling_grid(theta: Tensor, shape: Sequence[int]) -> Tensor:
    """Where to sample, ``[B, H, W, 2]``, for matrices ``[B, 2, 3]`` and pictures of ``shape``, ``(B, C, H, W)``.

    In float32 at least, whatever autocast takes for products: in bfloat16 a position is off by half a pixel of 84.
    """
    with autocast_off(theta):
        return F.affine_grid(theta if theta.dtype == torch.float64 else theta.float(), list(shape), align_corners=False)


def resample(images: Tensor, grid: Tensor) -> Tensor:
    """Images read at the places of a grid, bilinearly; what lies outside takes the border's values.

    A place that is not finite gives a value that is not: torch's kernel for the CPU would take it for an address
    in its backward pass, and end the process; its kernel for GPUs would take it for the border.

    Args:
        images: ``[B, C, H, W]``.
        grid: ``[B, H, W, 2]``, as `torch.nn.functional.affine_grid` gives it with ``align_corners=False``.
    """
    if not images.is_cpu:
        values = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return torch.add(values, grid.detach().sum(-1).unsqueeze(1), alpha=0)  # 0 times what is not finite is neither
    finite = torch.isfinite(grid).all(-1)[:, None]
    safe = torch.nan_to_num(grid)
    values = F.grid_sample(images, safe, padding_mode="border", align_corners=False)
    return torch.where(finite, values, torch.nan)


def stroke_width(images: Tensor, amount: Tensor) -> Tensor:
    """Bright strokes made wider or thinner: a mixture with the picture's grey dilation or erosion (3 x 3).

    Args:
        images: ``[B, C, H, W]``.
        amount: ``[B]`` in [-1, 1]; 1 is the dilation, -1 the erosion, 0 leaves the picture as it is.
    """
    # a 3 x 3 window is one of 3 x 1 and one of 1 x 3, both as maxima of shifted pictures: faster than pooling
    grow = amount[:, None, None, None] > 0
    signed = torch.where(grow, images, -images)
    padded = F.pad(signed, (1, 1, 1, 1), mode="replicate")
    rows = torch.maximum(torch.maximum(padded[..., :-2, :], padded[..., 1:-1, :]), padded[..., 2:, :])
    window = torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
    return images.lerp(torch.where(grow, window, -window), amount.abs()[:, None, None, None])


def cropped(theta: Tensor, side: Tensor, place: Tensor) -> Tensor:
    """Matrices ``[B, 2, 3]`` that show a window of what the matrices ``theta`` show.

    Args:
        side: ``[B]``, of the window, as a share of the picture's.
        place: ``[B, 2]`` in [-1, 1]: from the window at the left and top to the one at the right and bottom.
    """
    linear = theta[..., :2]
    column = theta[..., 2:] + linear @ (place * (1 - side).unsqueeze(-1)).unsqueeze(-1)
    return torch.cat((linear * side[:, None, None], column), -1)


def after(theta: Tensor, first: Tensor) -> Tensor:
    """Matrices ``[B, 2, 3]`` of the motions of ``first`` and then those of ``theta``."""
    linear = first[..., :2]
    return torch.cat((linear @ theta[..., :2], linear @ theta[..., 2:] + first[..., 2:]), -1)


def recoloured(images: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Pictures of three channels with other colours: what a pixel has beside its grey is scaled, and turned about grey.

    Grey is the mean of the channels, which stays as it is but where a channel leaves [0, 1] and is cut off.

    Args:
        images: ``[B, 3, H, W]`` in [0, 1].
        saturation: ``[B]`` factors; 0 leaves grey.
        hue: ``[B]`` radians; a third of a turn makes red green, green blue and blue red.

    Raises:
        InputError: for other numbers of channels.
    """
    if images.shape[1] != 3:
        raise InputError(
            f"augment.colour changes pictures of three channels; received {images.shape[1]}. Set it to 0 for these."
        )
    cos, sin = saturation * hue.cos(), saturation * hue.sin() / math.sqrt(3)
    # Rodrigues' rotation about (1, 1, 1): what a channel keeps, and what it takes from the next and the one before
    kept, rest = (1 + 2 * cos) / 3, (1 - cos) / 3
    own, after, before = (part[:, None, None, None] for part in (kept, rest - sin, rest + sin))
    mixed = own * images + after * images.roll(-1, 1) + before * images.roll(1, 1)
    return mixed.clamp(0, 1)


def warp(
    images: Tensor, config: AugmentConfig, generator: torch.Generator | None = None, shared: Tensor | None = None
) -> Warped:
    """Change each picture by its own draw, and say how.

    Stroke width first, then one resampling for all motions, then colour, then brightness, then
    `episodes.capture.capture`. What a warp brings in from outside takes the border's values.

    Args:
        images: float ``[..., C, H, W]`` in [0, 1].
        generator: to draw from. One on the CPU gives the same draws whatever device holds the pictures.
        shared: matrices ``[..., 2, 3]`` that broadcast over the pictures, such as `ClassWarp` draws: a motion that each
            picture makes before its own, in the same resampling. It has no numbers among the parameters.
    """
    shape = images.shape
    flat = images.reshape(-1, *shape[-3:])
    count, device = len(flat), flat.device

    def symmetric(*sizes: int) -> Tensor:
        return uniform(count, *sizes, device=device, generator=generator) * 2 - 1

    size = math.log1p(config.scale)
    limits = (math.radians(config.rotation), size, size, config.shear, *[2 * config.translation] * 2, config.stroke)
    draws = symmetric(len(PARAMETERS))  # of all, so that what is drawn later does not depend on which are used
    if not any(limits):
        draws.zero_()
    # limits are Python numbers: a tensor of them would have to cross to the device at every call
    columns = [
        column * limit if limit else column.zero_() for column, limit in zip(draws.unbind(-1), limits, strict=True)
    ]
    angle, log_x, log_y, shear, right, down, stroke = columns
    if config.stroke:
        flat = stroke_width(flat, stroke)
    if config.warps or shared is not None:
        mirrored = uniform(count, device=device, generator=generator) < config.flip
        theta = affine_matrix(angle, log_x, log_y, shear, torch.stack((right, down), -1))
        if config.flip:
            mirror = (1 - 2 * mirrored.to(theta))[:, None, None]
            theta = torch.cat((theta[:, :1] * mirror, theta[:, 1:]), 1)
        if config.crop:
            theta = cropped(theta, 1 - config.crop * uniform(count, device=device, generator=generator), symmetric(2))
        if shared is not None:
            theta = after(theta, shared.expand(*shape[:-3], 2, 3).reshape(-1, 2, 3))
        grid = sampling_grid(theta, flat.shape)
        if config.elastic:
            coarse = symmetric(2, 4, 4) * (2 * config.elastic)
            field = F.interpolate(coarse, shape[-2:], mode="bicubic", align_corners=False)
            grid = grid + field.permute(0, 2, 3, 1)
        flat = resample(flat, grid)
    if config.colour:
        saturation, hue = symmetric(2).unbind(-1)
        flat = recoloured(flat, 1 + config.colour * saturation, (math.pi / 2) * config.colour * hue)
    if config.brightness:
        gain = 1 + symmetric(1, 1, 1) * config.brightness
        offset = symmetric(1, 1, 1) * config.brightness
        flat = (flat * gain + offset).clamp(0, 1)
    if config.capture:
        flat = capture(flat.view(shape), config.capture, generator)
    return Warped(flat.view(shape), draws.view(*shape[:-3], len(PARAMETERS)))


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator | None = None) -> Tensor:
    """The pictures of `warp`: float ``[..., C, H, W]`` in [0, 1], each changed by its own draw."""
    return warp(images, config, generator).images
