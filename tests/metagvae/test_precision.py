"""Rounding by autocast and TF32: where it is allowed, and where not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from episodes import AugmentConfig, InputError
from episodes.augment import affine_matrix, sampling_grid, warp
from metagvae.compute import device as device_module
from metagvae.compute.device import Device, deterministic_algorithms
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.guidance import GuidanceContext
from metagvae.guidance.deformable_pca import DeformablePCA
from metagvae.learners import LEARNERS
from metagvae.training.loop import run_device

SIDE = 84


def matrices(count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    angle, log_x, log_y, shear = 0.3 * torch.randn(4, count, generator=generator)
    return affine_matrix(angle, log_x, log_y, shear, 0.3 * torch.randn(count, 2, generator=generator))


def test_grids_under_autocast_are_within_a_hundredth_of_a_pixel() -> None:
    theta = matrices()
    exact = F.affine_grid(theta.double(), [len(theta), 1, SIDE, SIDE], align_corners=False)
    with torch.autocast("cpu", torch.bfloat16):
        ours = sampling_grid(theta, (len(theta), 1, SIDE, SIDE))
        torchs = F.affine_grid(theta, [len(theta), 1, SIDE, SIDE], align_corners=False)
    pixels = (ours.double() - exact).abs().max() * SIDE / 2
    assert pixels < 0.01
    assert (torchs.double() - exact).abs().max() * SIDE / 2 > 0.1  # so there is something to mend
    assert sampling_grid(theta.double(), (len(theta), 1, SIDE, SIDE)).dtype == torch.float64


def test_augmentation_under_autocast_moves_pictures_as_it_does_without() -> None:
    images, config = torch.rand(16, 1, SIDE, SIDE), AugmentConfig(rotation=20, scale=0.2, shear=0.2, translation=0.1)
    moved = []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            moved.append(warp(images, config, torch.Generator().manual_seed(0)).images)
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=1e-6)


def test_the_gradient_of_the_geometry_units_under_autocast_is_within_half_a_percent() -> None:
    torch.manual_seed(0)
    units = {"geometry": list(range(6)), "content": list(range(6, 22))}
    guidance = DeformablePCA(GuidanceContext(1, SIDE, units))
    images, z = torch.rand(64, 1, SIDE, SIDE), torch.randn(64, 22)
    slopes = []
    for on in (False, True):
        point = z.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            error = F.mse_loss(guidance.light_decoder(point), images, reduction="sum")
        slopes.append(torch.autograd.grad(error, point)[0][:, :6])
    assert (slopes[1] - slopes[0]).norm() < 0.005 * slopes[0].norm()


def test_auto_is_float32_for_maml_alone_and_what_a_run_began_with_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_bfloat16_pays", lambda: True)
    section = RunSection(folder=str(tmp_path), device="cpu")
    chosen = {name: run_device(section, OptimSection(), kind.needs_float32).autocast for name, kind in LEARNERS.items()}
    assert chosen.pop("maml") is False
    assert all(chosen.values())
    assert run_device(section, OptimSection(precision="bfloat16"), exact=True).autocast
    (tmp_path / "provenance.json").write_text('{"precision": "bfloat16"}')
    resumed = RunSection(folder=str(tmp_path), device="cpu", resume="auto")
    assert run_device(resumed, OptimSection(), exact=True).autocast


@pytest.fixture
def _tf32_as_torch_has_it() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("_tf32_as_torch_has_it")
@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_a_gpu_rounds_products_only_where_that_is_asked_for(
    precision: str, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(device_module, "exact", lambda device: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or True)
    chosen = Device.choose("cpu", precision)
    assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is rounded
    assert chosen.precision_name == precision
    assert asked == [{"including_emulation": False}]  # a GPU that emulates bfloat16 is slower than in float32


def test_tf32_is_refused_elsewhere() -> None:
    with pytest.raises(InputError, match="'tf32' is of NVIDIA's GPUs"):
        Device.choose("cpu", "tf32")
    with pytest.raises(InputError, match="'tf32' or 'bfloat16'"):
        OptimSection(precision="half")


def test_kernels_are_fixed_only_where_a_run_is_to_be_deterministic() -> None:
    before = torch.backends.cudnn.deterministic
    Device.choose("cpu", "float32")
    assert torch.backends.cudnn.deterministic is before
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()  # which binds cuDNN too
    assert not torch.are_deterministic_algorithms_enabled()
