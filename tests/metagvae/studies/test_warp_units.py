"""`metagvae identify warps`, on units whose answer to a shift is known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from episodes import ImageBank, InputError
from metagvae.compute.device import Device
from metagvae.report.identifiability import warp_correlations
from metagvae.studies.warp_units import save, table, warp_units
from metagvae.zoo.card import EncoderCard

SHIFTS = {"translation": 0.1}


class Centre(nn.Module):
    """Where an image's ink lies, right and down, the two turned by an angle; and a unit of noise."""

    def __init__(self, angle: float) -> None:
        super().__init__()
        cos, sin = torch.tensor(angle).cos(), torch.tensor(angle).sin()
        self.turn = torch.stack((torch.stack((cos, -sin)), torch.stack((sin, cos))))
        self.units = {"geometry": [3, 4, 5]}

    def forward(self, images: Tensor) -> Tensor:
        ink = images.sum(1) / images.sum((1, 2, 3))[:, None, None]
        across = torch.linspace(-1, 1, images.shape[-1])
        centre = torch.stack(((ink * across).sum((1, 2)), (ink * across[:, None]).sum((1, 2))), -1)
        noise = (1e4 * ink[:, 5, 5]).sin()
        return torch.cat((noise[:, None], centre @ self.turn.T), -1)


def trained(angle: float, **augment: float) -> Any:
    """A trained run as the study sees it: its settings, its encoder and its data."""
    generator = torch.Generator().manual_seed(0)
    blobs = torch.zeros(400, 1, 28, 28)
    for row, (x, y) in enumerate(torch.randint(9, 17, (400, 2), generator=generator).tolist()):
        blobs[row, 0, y : y + 4, x : x + 3] = 1
    images = (255 * blobs).to(torch.uint8)
    bank = ImageBank.from_classes([("a", images[:200]), ("b", images[200:])], dataset="blobs", split="test")
    made = SimpleNamespace(load=lambda split: bank)
    return SimpleNamespace(
        name=f"turned-{angle}",
        config={"augment": augment or SHIFTS},
        encoder=lambda features=None: Centre(angle),
        data=SimpleNamespace(make=lambda: made),
        card=EncoderCard(name="centre"),
    )


def test_mixed_units_are_read_together_and_not_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metagvae.studies.warp_units.describe", lambda trained: {})
    device = Device.choose("cpu", "float32")
    apart, mixed = (warp_units(trained(angle), "geometry", "test", 0, device) for angle in (0.0, 0.785))
    assert list(apart.each) == ["shift_x", "shift_y"]
    assert apart.unit == {"shift_x": 4, "shift_y": 5}
    assert apart.places == {"shift_x": 1, "shift_y": 2}
    assert apart.score > 0.97
    assert 0.5 < mixed.score < 0.8  # each unit is half of both
    assert min(*apart.together.values(), *mixed.together.values()) > 0.97
    assert [len(row) for row in mixed.every] == [2, 2, 2]
    assert apart.every[1][0] == pytest.approx(apart.each["shift_x"], abs=1e-3)
    save([apart, mixed], tmp_path / "units.json")
    rows = json.loads((tmp_path / "units.json").read_text())["rows"]
    assert [row["units"] for row in rows[:2]] == ["geometry, one by one", "geometry, read together"]
    assert rows[0]["mean"] == f"{apart.score:.3f}"
    assert "read together" in table([mixed])
    warp_correlations([apart, mixed], tmp_path / "units.png")
    assert (tmp_path / "units.png").stat().st_size > 5000


def test_a_run_that_did_not_warp_is_refused() -> None:
    with pytest.raises(InputError, match="did not warp its images"):
        warp_units(trained(0.0, brightness=0.1), "geometry", "test", 0, Device.choose("cpu", "float32"))


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    with pytest.raises(InputError, match="--seed must be between"):
        warp_units(trained(0.0), "geometry", "test", 10**23, Device.choose("cpu", "float32"))
