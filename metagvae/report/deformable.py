"""The deformable path: a linear picture, the warp that the geometry units choose, and the result beside the input."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metagvae.guidance import Deformation
from metagvae.report.images import strip
from metagvae.report.material import Material
from metagvae.report.section import LeftOut
from metagvae.vae.guided_vae import GuidedVAE

COUNT = 8
LINES = (-1.0, -0.5, 0.0, 0.5, 1.0)


def motion(theta: Tensor) -> Tensor:
    """``[2, 3]``: where a point of the picture goes, from where each output point comes from (a sampling matrix)."""
    inverse = torch.linalg.inv(theta[:, :2].double())
    return torch.cat((inverse, -inverse @ theta[:, 2:].double()), 1)


def in_words(moved: Tensor, side: int) -> str:
    """A motion ``[2, 3]`` as rotation, size, shear and shift of a picture ``side`` pixels wide."""
    (a, b, right), (c, d, down) = moved.tolist()
    # M = R(angle) S(shear) D(width, height); y points down, so a turn to the left has a negative sine below
    wide = math.hypot(a, c)
    cos, sin = a / wide, c / wide
    high = cos * d - sin * b
    shear = (cos * b + sin * d) / high
    turned = -math.degrees(math.atan2(sin, cos))
    across, along = right * side / 2, down * side / 2
    return (
        f"turned {abs(turned):.0f}° {'left' if turned >= 0 else 'right'}, {wide:.2f} times as wide and {high:.2f} "
        f"times as high, sheared {shear:+.2f}, moved {abs(across):.1f} px {'right' if across >= 0 else 'left'} and "
        f"{abs(along):.1f} px {'down' if along >= 0 else 'up'}"
    ).replace("-", "−")


def grid_lines(moved: Tensor) -> list[list[tuple[float, float, float, float]]]:
    """A square grid after a motion: of each direction, lines as x1, y1, x2, y2 on a canvas of 100."""

    def place(x: float, y: float) -> tuple[float, float]:
        u, v = (moved @ torch.tensor([x, y, 1.0], dtype=moved.dtype)).tolist()
        return round(50 + 22 * u, 1), round(50 + 22 * v, 1)

    across = [(*place(-1, at), *place(1, at)) for at in LINES]
    down = [(*place(at, -1), *place(at, 1)) for at in LINES]
    return [across, down]


def _first_deformation(vae: GuidedVAE, z: Tensor) -> Deformation | None:
    for guidance in vae.guidances:
        path = guidance.deformation(z)
        if path is not None:
            return path
    return None


@torch.no_grad()
def deformable_content(run: Material) -> dict[str, Any]:
    """For the template: for some pictures, each step of the light decoder.

    Raises:
        LeftOut: if none of the run's guidances deforms pictures.
    """
    vae, images = run.vae, run.pictures(COUNT)
    path = _first_deformation(vae, vae.infer(images).mean)
    if path is None:
        raise LeftOut("The guidance deformable_pca was not among this run's, so there is no linear image to warp.")
    content, result = path.linear, path.warped
    side = images.shape[-1]
    rows = []
    for number, theta in enumerate(path.matrices.float().cpu()):
        moved = motion(theta)
        words, at = in_words(moved, side), slice(number, number + 1)
        rows.append(
            {
                "input": strip(images[at], f"Image {number + 1}."),
                "content": strip(content[at], f"Content of image {number + 1}, not yet warped."),
                "lines": grid_lines(moved),
                "words": words,
                "result": strip(result[at], f"Content of image {number + 1} after the warp."),
            }
        )
    identity = F.mse_loss(content, images)
    warped = F.mse_loss(result, images)
    return {
        "rows": rows,
        "transforms": ", ".join(path.transforms),
        "units": path.geometry,
        "components": path.components,
        "before": f"{float(identity):.4f}",
        "after": f"{float(warped):.4f}",
    }
