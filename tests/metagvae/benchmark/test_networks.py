"""The step that rows time: captured, it does what it does eagerly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from metagvae.benchmark.networks import captured
from metagvae.compute.device import Device
from metagvae.training.captured_step import WARM
from tests.support.tape import Tape

REPLAYS = 3


def stepping_down(network: nn.Module, inputs: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(inputs).square().mean().backward()
        optimizer.step()

    return step


def test_replays_of_a_captured_step_are_steps() -> None:
    device, inputs = Device.choose("cpu", "float32"), torch.rand(8, 3)
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    start = networks[0].weight.detach().clone()
    eager, other = (stepping_down(network, inputs) for network in networks)
    for _ in range(WARM + REPLAYS):
        eager()
    replay = captured(other, device, Tape())
    for _ in range(REPLAYS):
        replay()
    torch.testing.assert_close(networks[1].weight, networks[0].weight)
    assert not torch.allclose(networks[0].weight, start)


def test_a_processor_takes_the_step_as_it_is() -> None:
    def step() -> None: ...

    assert captured(step, Device.choose("cpu", "float32")) is step
