"""The largest singular value is kept at 1, by the singular values that numpy finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from metagvae.encoders.spectral_norm import SpectralConv2d, SpectralLinear, iterate, normalised

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
