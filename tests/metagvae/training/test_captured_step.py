"""A captured step against the eager one, on a CPU by a tape of its operations, on a GPU by a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from episodes import AugmentConfig, EpisodeLoader, InputError
from episodes.batch_share import Share
from metagvae.compute.device import Device, uncompiled
from metagvae.config.episodes import EpisodeSection
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import EncoderSection, LearnerSection, PretrainConfig, TrainConfig, VAESection
from metagvae.training.captured_step import WARM, CapturedStep, CudaGraph
from metagvae.training.episode_terms import EpisodeTerms
from metagvae.training.loop import captures
from metagvae.training.pretraining import PictureDraws, PictureTerms
from metagvae.training.step import StepInputs, TrainingStep
from metagvae.training.trainee import build_parts
from metagvae.zoo.build import attribute_sizes, new_encoder, new_vae
from tests.support.banks import drawn_by_hands, stripes
from tests.support.tape import Tape

STEPS = WARM + 4
WARPED = AugmentConfig(rotation=20, scale=0.2, shear=0.2, translation=0.1, flip=0.5, brightness=0.1, stroke=0.3)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
CURES = {"inner_steps": 2, "second_order_from": 0.5, "rates": "learnt", "every_loss_until": 0.7, "head": "zero"}
Made = tuple[nn.Module, Callable[[int], StepInputs], Callable[[StepInputs], dict[str, Tensor]]]


def episodes(device: Device, learner: str, options: dict[str, Any]) -> Made:
    shape = EpisodeSection(way=3, shot=1, query=2, tasks=2)
    encoder = EncoderSection(width=8, latent=8, norm="support" if learner == "maml" else "running")
    config = TrainConfig(encoder=encoder, learner=LearnerSection(learner, options), episodes=shape, augment=WARPED)
    bank = stripes(size=28).to(device.device)
    parts = build_parts(config, bank)
    device.place(parts.learner)
    loader = EpisodeLoader(bank, shape.sampler(bank, 0, "train", False), shape.tasks, device.device)

    def draw(step: int) -> StepInputs:
        batch = loader[step]
        return {"images": batch.images, "classes": batch.classes, "indices": batch.indices, "progress": step / STEPS}

    return parts.learner.train(), draw, EpisodeTerms(config, parts, bank, device)


def pictures(device: Device, guidance: list[dict[str, Any]]) -> Made:
    views = 2 if any(one["name"] == "warp_pairs" for one in guidance) else 1
    section = VAESection(guidance=guidance, decoder_width=8, warm_up=STEPS - 1)
    encoder = EncoderSection(width=8, latent=16)
    config = PretrainConfig(encoder=encoder, vae=section, augment=WARPED, batch=8, views=views)
    bank = drawn_by_hands(size=28).to(device.device)
    vae = new_vae(new_encoder(encoder, section, bank, 0), section, attribute_sizes(bank)).train()
    device.place(vae)
    return vae, PictureDraws(config, bank, device, Share(0, 8, 8)), PictureTerms(config, vae, bank, device)


WORK: dict[str, Callable[[Device], Made]] = {
    "prototypes": lambda device: episodes(device, "prototypes", {}),
    "ridge": lambda device: episodes(device, "ridge", {}),
    "anil": lambda device: episodes(device, "anil", {}),
    "maml": lambda device: episodes(device, "maml", {"batching": "vmap"}),
    "maml with cures": lambda device: episodes(device, "maml", {"batching": "vmap", **CURES}),
    "anil with cures": lambda device: episodes(device, "anil", CURES),
    "statistician": lambda device: episodes(
        device, "statistician", {"excitation": 1.0, "inhibition": 1.0, "mixup": 0.2}
    ),
    "vae": lambda device: pictures(device, []),
    "deformable_pca": lambda device: pictures(device, [{"name": "deformable_pca"}]),
    "excitation_inhibition": lambda device: pictures(
        device, [{"name": "excitation_inhibition", "attributes": {"third": 2}}]
    ),
    "excitation_inhibition within": lambda device: pictures(
        device, [{"name": "excitation_inhibition", "attributes": {"hand": 2}, "within": {"hand": "third"}}]
    ),
    "warp_pairs": lambda device: pictures(device, [{"name": "warp_pairs", "inhibition": 1.0}]),
}


def trained(device: Device, name: str, captured: bool, allowed: int = 0) -> tuple[list[dict[str, Tensor]], nn.Module]:
    """The terms of each step and the module after them; the rate changes at each step."""
    torch.manual_seed(0)
    module, draw, terms = WORK[name](device)
    optim = OptimSection(clip=1.0, skip_nonfinite=allowed)
    step = TrainingStep(module, terms, optim, Share(), device, str, fused=True)
    take = CapturedStep(step, CudaGraph() if device.device.type == "cuda" else Tape()) if captured else step
    seen = []
    for number in range(STEPS):
        inputs: StepInputs = draw(number)
        if not captured:  # a tensor, as a captured step has it, so that the same bits come out
            inputs = {
                k: v if isinstance(v, Tensor) else torch.full((), v, device=device.device) for k, v in inputs.items()
            }
        seen.append(take(inputs, number, 1e-2 / (number + 1), 7 * number))
    step.guard.check()
    return seen, module


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("name", WORK)
def test_a_captured_step_has_the_terms_and_draws_of_the_eager_one(kind: str, name: str) -> None:
    device = Device.choose(kind, "float32")
    (eager, one), (captured, other) = (trained(device, name, captured) for captured in (False, True))
    assert [list(terms) for terms in eager] == [list(terms) for terms in captured]
    for number, (a, b) in enumerate(zip(eager, captured, strict=True)):
        for term in a:
            torch.testing.assert_close(b[term], a[term], rtol=1e-5, atol=1e-6, msg=f"{term} of step {number}")
    assert len({float(terms[next(iter(terms))]) for terms in captured}) == STEPS  # none is of another step
    for (key, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5, msg=key)


def test_a_step_that_reads_a_number_back_is_refused_by_name() -> None:
    device = Device.choose("cpu", "float32")
    module = nn.Linear(2, 1)

    def terms(inputs: StepInputs) -> dict[str, Tensor]:
        value = module(inputs["x"]).square().mean()
        return {"error": value * float(value.detach())}

    take = CapturedStep(TrainingStep(module, terms, OptimSection(), Share(), device, str, fused=True), Tape())
    for number in range(WARM):
        take({"x": torch.ones(3, 2)}, number, 0.1, number)
    with pytest.raises(InputError, match=r"cannot be captured .*Set optim\.graph to off"):
        take({"x": torch.ones(3, 2)}, WARM, 0.1, WARM)


def test_a_compiled_step_is_captured_too_and_none_is_on_a_processor() -> None:
    gpu, processor = Device(torch.device("cuda"), False), Device(torch.device("cpu"), False)
    assert captures(OptimSection(compile=True), gpu)
    assert not captures(OptimSection(graph="off"), gpu)
    assert not captures(OptimSection(), processor)
    with pytest.raises(InputError, match=r"of one process on a GPU; received the device cpu and 1 process"):
        captures(OptimSection(graph="on"), processor)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6")
def test_validation_compiles_nothing() -> None:
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled.append(graph.code)
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=backend, dynamic=False)
    with uncompiled():
        assert double(torch.ones(3)).tolist() == [2, 2, 2]
    assert compiled == []
    assert double(torch.ones(3)).tolist() == [2, 2, 2]
    assert len(compiled) == 1
