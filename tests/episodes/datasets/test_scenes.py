"""Scenes: what is measured on the picture is what the equations say, and effects follow their causes alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.flow import FlowScene
from episodes.datasets.pendulum import PendulumScene
from episodes.datasets.scenes import Scene

SCENES = {"pendulum": PendulumScene, "flow": FlowScene}


def places(scene: Scene, ink: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (right, up) of the ink ``[B, H, W]``, in the scene's units, by its own arithmetic."""
    left, bottom, side = scene.view
    axis = (torch.arange(ink.shape[-1]) + 0.5) * side / ink.shape[-1]
    whole = ink.sum((1, 2))
    right = left + (ink.sum(1) * axis).sum(-1) / whole
    return right, bottom + side - (ink.sum(2) * axis).sum(-1) / whole


@pytest.mark.parametrize("size", [32, 96])
def test_the_pendulum_lies_where_the_equations_say(size: int) -> None:
    scene = PendulumScene(size)
    factors = scene.grid()[::7]
    sun, pendulum, shadow = scene.render(factors).unbind(1)
    half = 0.5 * scene.pixel
    theta, phi = math.pi / 180 * factors[:, 0].double(), math.pi / 180 * factors[:, 1].double()
    x, y = places(scene, sun)
    assert float((x - (10 + 10 / torch.tan(phi))).abs().max()) < half
    assert float((y - 20.5).abs().max()) < half
    # the rod leads from the pivot to the ball: the middle of both lies on that line
    x, y = places(scene, pendulum)
    away = torch.stack((x - 10, y - 10.5), -1)
    ball = 8 * away / away.norm(dim=-1, keepdim=True)
    assert float((ball - 8 * torch.stack((theta.sin(), -theta.cos()), -1)).abs().max()) < half
    # rays through the pivot and through the tip meet the ground at the shadow's ends
    ends = torch.stack((10 - 11 / torch.tan(phi), 10 + 9.5 * theta.sin() - (11 - 9.5 * theta.cos()) / torch.tan(phi)))
    x, y = places(scene, shadow)
    assert float((x - ends.mean(0)).abs().max()) < half
    length = shadow.amax(1).sum(-1) / shadow.amax((1, 2)) * scene.pixel
    assert float((length - (ends[0] - ends[1]).abs().clamp(min=3)).abs().max()) < half
    assert float((y + 0.5).abs().max()) < half


@pytest.mark.parametrize("size", [32, 96])
def test_the_flow_lies_where_the_equations_say(size: int) -> None:
    scene = FlowScene(size)
    factors = scene.grid()[::11]
    ball, water, jet = scene.render(factors).unbind(1)
    radius, hole, height, distance = factors.double().unbind(-1)
    x, y = places(scene, ball)
    half = 0.5 * scene.pixel
    assert float((x - 5.5).abs().max()) < half
    assert float((y - 0.5 - radius).abs().max()) < half
    area = ball.sum((1, 2)) * scene.pixel**2
    assert float((area.div(math.pi).sqrt() - radius).abs().max()) < half
    top = water.sum((1, 2)) * scene.pixel**2 / 5  # five wide
    assert float((top - 5 - height).abs().max()) < half
    assert float((height - radius**3).min()) > 0.99
    # from where the jet leaves the cup to where it meets the ground
    reach = (2 * 0.98 * height * (hole - 0.5)).sqrt()
    assert torch.allclose(distance, reach, atol=1e-5)
    columns = 2.5 + (torch.arange(size) + 0.5) * scene.pixel
    for up in (0.8, 1.0):
        row = int((13 - up) / scene.pixel)
        middle = 13 - (row + 0.5) * scene.pixel  # of that row of pixels
        x = (jet[:, row] * columns).sum(-1) / jet[:, row].sum(-1)
        assert float((x - 8 - reach * ((hole - middle) / (hole - 0.5)).sqrt()).abs().max()) < half
    beside = jet[:, :, int((8 - 2.5) / scene.pixel)]
    up = 13 - (torch.arange(size) + 0.5) * scene.pixel
    assert float(((beside * up).sum(-1) / beside.sum(-1) - hole).abs().max()) < half


@pytest.mark.parametrize("name", SCENES)
def test_a_picture_is_a_function_of_its_factors(name: str) -> None:
    scene = SCENES[name](32)
    factors = scene.grid()[::501]
    assert torch.equal(scene.render(factors), scene.render(factors.flip(0)).flip(0))
    assert bool(torch.isfinite(scene.render(factors)).all())
    for number, factor in enumerate(scene.parents):
        changed = factors.clone()
        changed[:, number] += {"angle": 20, "light": 20}.get(factor, 0.5)
        assert (scene.render(changed) != scene.render(factors)).flatten(1).any(1).all(), factor


@pytest.mark.parametrize("name", SCENES)
def test_an_intervention_moves_the_effects_and_keeps_the_noise(name: str) -> None:
    dataset = make_dataset(name, noise=0.3)
    scene, factors = dataset.scene(), dataset.load("test").factors  # type: ignore[attr-defined]
    assert factors is not None
    values, other = factors.values, factors.values.flip(0)
    columns = list(scene.parents)
    for factor in columns:
        at = columns.index(factor)
        moved = scene.intervene(values, {factor: other[:, at]})
        assert torch.equal(moved[:, at], other[:, at])
        after, before = (scene.by_name(rows) for rows in (moved, values))
        reached = {factor}
        for child, parents in scene.parents.items():
            if child == factor:
                continue
            if reached & set(parents):
                reached.add(child)
                kept = [rows[child] - scene.effect(child, rows) for rows in (after, before)]
                assert torch.allclose(*kept, atol=2e-5)
                assert not torch.equal(after[child], before[child])
            else:
                assert torch.equal(after[child], before[child])  # bit for bit
    noise = [before[c] - scene.effect(c, before) for c, parents in scene.parents.items() if parents][-1]
    assert 0.27 < float(noise.std()) < 0.33
    assert torch.equal(values, make_dataset(name, noise=0.3).load("test").factors.values)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SCENES)
def test_no_class_is_in_two_splits_and_only_training_hides_factors(name: str) -> None:
    dataset = make_dataset(name, labelled=0.25, hidden=[next(iter(SCENES[name].parents))])
    banks = {split: dataset.load(split) for split in ("train", "validation", "test")}
    names = [name for bank in banks.values() for name in bank.class_names]
    assert len(set(names)) == len(names) == dataset.bands  # type: ignore[attr-defined]
    assert sum(map(len, banks.values())) == len(SCENES[name](32).grid())
    for split, bank in banks.items():
        assert dataset.sizes(split) == bank.counts.tolist()
        assert bank.factors is not None
        shares = bank.factors.known.float().mean(0).tolist()
        assert shares == ([0.0] + [pytest.approx(0.25, abs=1e-3)] * 3 if split == "train" else [1.0] * 4)


def test_wrong_options_are_told() -> None:
    for options, says in (
        ({"noise": -1.0}, "noise must be in"),
        ({"labelled": 1.5}, "labelled in"),
        ({"hidden": ["colour"]}, "hidden must name some of its factors, angle, light, length, middle; received colour"),
    ):
        with pytest.raises(InputError, match=says):
            make_dataset("pendulum", **options)
