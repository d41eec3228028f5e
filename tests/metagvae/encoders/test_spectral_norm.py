"""The largest singular value is kept at 1, by the singular values that numpy finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from episodes.batch_share import Share
from metagvae.compute.device import Device
from metagvae.config.optimisation import OptimSection
from metagvae.encoders.spectral_norm import SpectralConv2d, SpectralLinear, iterate, normalised
from metagvae.training.averaged_weights import AveragedWeights
from metagvae.training.step import TrainingStep, as_tensor

LAYERS = {
    "conv": (lambda: SpectralConv2d(3, 8, 4, stride=2, padding=1), (5, 3, 16, 16)),
    "linear": (lambda: SpectralLinear(20, 7), (5, 20)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_largest_singular_value_is_one_while_weights_move(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make()
    optimizer = torch.optim.Adam(layer.parameters(), 1e-2)
    for _ in range(100):
        iterate(nn.Sequential(layer))
        optimizer.zero_grad()
        (-layer(torch.randn(shape)).square().mean()).backward()
        optimizer.step()
    for _ in range(50):  # the weights stand still
        layer.iterate()
    found = normalised(layer.weight, layer.left).detach().flatten(1).numpy()
    assert np.linalg.svd(found, compute_uv=False)[0] == pytest.approx(1.0, abs=1e-3)
    assert np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False)[0] > 1.05


@pytest.mark.parametrize("kind", LAYERS)
def test_a_call_changes_nothing_and_a_stranger_to_the_weights_gets_no_gradient(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    images = torch.randn(shape, requires_grad=True)
    still = {name: weight.detach() for name, weight in layer.named_parameters()}
    functional_call(layer, still, (images,)).sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())
    assert all(weight.grad is None for weight in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert torch.equal(layer(images), functional_call(layer, still, (images,)))


@pytest.mark.parametrize("kind", LAYERS)
def test_bfloat16_rounds_maps_and_not_the_singular_value(kind: str) -> None:
    torch.manual_seed(0)
    make, _ = LAYERS[kind]
    layer, other = make(), make()
    other.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        layer.iterate()
        found = normalised(layer.weight, layer.left)
    other.iterate()
    assert torch.equal(layer.left, other.left)
    assert torch.equal(found, normalised(other.weight, other.left))


def test_the_gradient_is_that_of_the_singular_value() -> None:
    torch.manual_seed(0)
    layer = SpectralLinear(6, 4).double()
    for _ in range(500):
        layer.iterate()
    normalised(layer.weight, layer.left).sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    (weight / torch.linalg.matrix_norm(weight, ord=2)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, weight.grad, atol=1e-6)


def largest(layer: nn.Module) -> float:
    """The largest singular value of the weight that a layer computes with, by numpy."""
    found = layer.normalised.detach().flatten(1).double().numpy()  # type: ignore[operator, union-attr]
    return float(np.linalg.svd(found, compute_uv=False)[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_every_training_step_follows_the_value_and_leaves_a_frozen_layer_alone(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer, frozen = make(), make().eval()
    frozen.requires_grad_(False)
    kept = frozen.left.clone()
    module = nn.ModuleList([layer, frozen])
    wanted = make().requires_grad_(False)  # another weight, so that the layer's turns all the way
    step = TrainingStep(
        module,
        lambda inputs: {"loss": (layer(as_tensor(inputs["x"])) - 5 * wanted(as_tensor(inputs["x"]))).square().mean()},
        OptimSection(steps=300, lr=0.02),
        Share(),
        Device.choose("cpu"),
        str,
    )
    for number in range(300):
        step({"x": torch.randn(shape)}, number, 0.02 * (1 - number / 300), number)
    assert largest(layer) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(frozen.left, kept)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_mean_of_weights_is_divided_by_its_own_value(kind: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind][0]()
    average = AveragedWeights(layer, decay=1.0)
    for step in range(30):
        with torch.no_grad():
            layer.weight.add_(0.3 * torch.randn_like(layer.weight))
        for _ in range(20):
            layer.iterate()
        average.add(step)
    own = layer.left.clone()
    with average.in_place():
        assert largest(layer) == pytest.approx(1.0, abs=1e-4)
        assert float(layer.left.norm()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(layer.left, own)
