"""Batch normalisation with its second derivatives written out, against finite differences and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.nn import functional as F

from metagvae.encoders.native_batch_norm import batch_norm_twice
from metagvae.encoders.twice_differentiable import batch_norm, batch_norm_by_lead


def inputs(rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, 2, 2, dtype=torch.float64, generator=generator)
    w, b = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    return x.requires_grad_(), (1 + 0.1 * w).requires_grad_(), b.requires_grad_()


def test_first_and_second_derivatives_are_those_of_finite_differences() -> None:
    assert gradcheck(lambda x, w, b: batch_norm(x, w, b, 1e-5), inputs())
    assert gradgradcheck(lambda x, w, b: batch_norm(x, w, b, 1e-5), inputs())


@pytest.mark.parametrize("lead", [1, 2, 5])
def test_statistics_of_the_first_rows_alone(lead: int) -> None:
    x, w, b = inputs(5)
    assert gradcheck(lambda x, w, b: batch_norm_by_lead(x, w, b, 1e-5, lead), (x, w, b))
    led = F.batch_norm(x[:lead], None, None, w, b, True, 0.0, 1e-5)
    torch.testing.assert_close(batch_norm_by_lead(x, w, b, 1e-5, lead)[:lead], led)


def test_a_gradient_of_a_gradient_under_vmap_is_that_of_a_loop_over_torchs_own() -> None:
    """torch's own rule for batch norm with weights gives another one under vmap."""
    tasks = torch.randn(3, 4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def outer(norm, weight: Tensor, bias: Tensor, factor: Tensor, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        def inner(factor: Tensor) -> Tensor:
            return norm(x * factor[:, None, None], weight, bias).pow(3).mean()

        return inner(factor - 0.5 * grad(inner)(factor))

    slopes = []
    for vmapped in (True, False):
        _, weight, bias = inputs()
        factor = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
        if vmapped:
            one = vmap(lambda x: outer(lambda *a: batch_norm(*a, 1e-5), weight, bias, factor, x))  # noqa: B023
            total = one(tasks).sum()
        else:
            own = lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.0, 1e-5)  # noqa: E731
            total = torch.stack([outer(own, weight, bias, factor, x) for x in tasks]).sum()
        slopes.append(torch.autograd.grad(total, (weight, bias, factor)))
    for ours, torchs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_torchs_kernels_give_the_second_derivatives_of_finite_differences(layout: torch.memory_format) -> None:
    x, w, b = inputs()
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    with torch.no_grad():
        w[1] = 0.0  # a weight of nothing must not divide by it
    assert gradcheck(lambda x, w, b: batch_norm_twice(x, w, b, 1e-5), (x, w, b))
    assert gradgradcheck(lambda x, w, b: batch_norm_twice(x, w, b, 1e-5), (x, w, b))
    own = F.batch_norm(x, None, None, w, b, True, 0.0, 1e-5)
    torch.testing.assert_close(batch_norm_twice(x, w, b, 1e-5), own)
