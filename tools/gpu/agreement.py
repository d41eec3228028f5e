"""Every learner's and every guidance's step against the CPU: same weights, same pictures, same random numbers.

The yardstick is float64 on the CPU: how far float32 on the CPU is from it, and how far the device is, in float32
without TF32, with TF32, and in the precision that training takes there.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from episodes import EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, ImageBank
from gpu.cases import GUIDANCES, LEARNERS, Problem, guidance_problem, learner_problem
from gpu.setup import Report, Setup
from metagvae.compute.device import Device, channels_last

DRAWS = {
    torch.rand,
    torch.randn,
    torch.rand_like,
    torch.randn_like,
    torch.randint,
    torch.randperm,
    torch.bernoulli,
    torch._standard_gamma,
    torch._sample_dirichlet,
}


class SameDraws(TorchFunctionMode):
    """Random numbers drawn in float32 on the CPU and then put where they are wanted."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in DRAWS:
            return func(*args, **kwargs)
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        if args and isinstance(args[0], Tensor):
            device, dtype = device or args[0].device, dtype or args[0].dtype
            args = (args[0].detach().cpu().float(), *args[1:])
        kwargs.pop("generator", None)
        if func in (torch.randint, torch.randperm):
            drawn = func(*args, **kwargs)
        else:
            drawn = func(*args, **kwargs, dtype=torch.float32) if not _takes_tensor(func) else func(*args, **kwargs)
        return drawn.to(device=device, dtype=dtype)


def _takes_tensor(func: Any) -> bool:
    return func in (torch.rand_like, torch.randn_like, torch.bernoulli, torch._standard_gamma, torch._sample_dirichlet)


def slopes(problem: Problem, device: Device, dtype: torch.dtype) -> tuple[dict[str, float], Tensor]:
    """The loss terms and their whole gradient, float64 on the CPU."""
    module = copy.deepcopy(problem.module).to(device.device, dtype)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = channels_last(parameter.data)

    def put(x: Tensor) -> Tensor:
        return x.to(device.device, dtype if x.is_floating_point() else x.dtype)

    torch.manual_seed(0)
    with SameDraws(), device.precision():
        terms = problem.terms(module, put)
    total = torch.stack([term.to(dtype) for term in terms.values()]).sum()
    total.backward()
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    gradient = torch.cat([part.detach().double().cpu().flatten() for part in parts])
    return {name: float(term.detach()) for name, term in terms.items()}, gradient


def apart(one: tuple[dict[str, float], Tensor], true: tuple[dict[str, float], Tensor]) -> dict[str, float]:
    """The largest relative difference of a term, the relative difference of the gradients and their cosine."""
    terms = max(abs(one[0][name] - value) / max(abs(value), 1e-12) for name, value in true[0].items())
    gap = float((one[1] - true[1]).norm() / true[1].norm())
    cosine = float(torch.nn.functional.cosine_similarity(one[1], true[1], 0))
    return {"terms": terms, "gradient": gap, "cosine": cosine}


def tf32(on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def compare(setup: Setup, make: Callable[[], Problem]) -> dict[str, Any]:
    """Every way's distance from float64 on the CPU."""
    cpu = Device(torch.device("cpu"), False)
    there = Device.choose("cuda:0" if setup.device == "cuda" else "cpu", "float32")
    problem = make()
    true = slopes(problem, cpu, torch.float64)
    tf32(False)
    values: dict[str, Any] = {
        "terms": list(true[0]),
        "cpu float32": apart(slopes(problem, cpu, torch.float32), true),
        "device float32": apart(slopes(problem, there, torch.float32), true),
    }
    # two float32s differ from float64 by as much as the network amplifies rounding, each in its own way
    gap, usual = (values[f"{way} float32"]["gradient"] for way in ("device", "cpu"))
    values["agrees"] = gap <= 4 * usual + 1e-4
    if setup.device == "cuda":
        tf32(True)
        values["device TF32"] = apart(slopes(problem, there, torch.float32), true)
        tf32(False)
    values["bfloat16"] = apart(slopes(problem, Device(there.device, True), torch.float32), true)
    return values


def batches(setup: Setup, bank: ImageBank) -> dict[str, Any]:
    """Batches of the device against the CPU's: equal, whatever the shape, rotations and the sampler."""
    device = Device.choose(setup.device).device
    there, cases = bank.to(device), itertools.product(((5, 1, 15), (20, 5, 15), (60, 1, 5)), (False, True), (0, 2**62))
    kernels, wrong = 0, []
    for (way, shot, query), turns, seed in cases:
        ours, theirs = (
            EpisodeLoader(
                where,
                EpisodeSampler(
                    where, Episodes(EpisodeShape(way, shot, query), seed=seed, stream="train", rotations=turns)
                ),
                8,
            )
            for where in (there, bank)
        )
        kernels += ours._kernel is not None
        for step in (0, 1, 2**20):
            one, other = ours[step], theirs[step]
            same = (torch.equal(getattr(one, n).cpu(), getattr(other, n)) for n in ("images", "classes", "indices"))
            if not all(same):
                wrong.append([way, shot, query, turns, seed, step])
    return {"by one kernel": kernels, "wrong": wrong, "agrees": not wrong}


def run(setup: Setup, report: Report) -> None:
    bank, width = setup.bank(), setup.size(64, 16)
    report.attempt("batches", lambda: batches(setup, bank))
    for learner in LEARNERS:
        report.attempt(
            f"learner {learner.name}",
            lambda case=learner: compare(setup, lambda: learner_problem(case, bank, width, setup.size(4, 2))),
        )
    for guidance in GUIDANCES:
        report.attempt(
            f"guidance {guidance.name}",
            lambda case=guidance: compare(setup, lambda: guidance_problem(case, bank, width, setup.size(128, 16))),
        )
