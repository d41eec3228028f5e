"""Moments of a batch of maps, in every precision that a step computes in."""

from __future__ import annotations

import pytest
import torch

from episodes.batch_share import Share, holding
from metagvae.compute.batch_statistics import batch_moments
from metagvae.encoders.norm import Norm2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_moments_keep_the_digits_that_half_precision_lacks(dtype: torch.dtype, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    maps = (torch.randn(16, 4, 9, 9) * 3 + 5).to(dtype).contiguous(memory_format=layout)
    mean, var, count = batch_moments(maps)
    assert count == 16 * 81
    assert mean.dtype == var.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    true_var, true_mean = torch.var_mean(maps.double(), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean.double(), true_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(var.double(), true_var, rtol=1e-4, atol=1e-5)


def test_a_part_of_a_batch_in_bfloat16_is_normalised_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks' halves, here one after another in one process, each told of the whole batch's moments."""
    torch.manual_seed(0)
    whole = torch.randn(8, 4, 6, 6) * 2 + 1
    plain, parted = Norm2d(4).train(), Norm2d(4).train()
    moments = batch_moments(whole.bfloat16())
    monkeypatch.setattr("metagvae.encoders.norm.batch_moments", lambda _: moments)
    expected = plain(whole.bfloat16())
    with holding(Share(0, 1, 2)):
        part = whole[:4].bfloat16().requires_grad_()
        out = parted(part)
        out.float().square().sum().backward()
    torch.testing.assert_close(out, expected[:4], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(parted.running_mean, plain.running_mean, rtol=1e-3, atol=1e-3)
    assert part.grad is not None
    assert part.grad.dtype == torch.bfloat16
    assert bool(part.grad.isfinite().all())
