"""The path to an accelerator, shown on a machine without one: torch's fake CUDA tensors tell two devices apart."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from episodes import AugmentConfig, EpisodeBatch, EpisodeLoader, Episodes, EpisodeSampler, EpisodeShape, ImageBank
from episodes.batch_share import Share
from episodes.capture import CaptureConfig
from episodes.devices import exact
from episodes.samplers.prescribed import FixedEpisodes
from episodes.shape import Within
from metagvae.compute import device as device_module
from metagvae.compute.device import Device
from metagvae.compute.processes import Ranks
from metagvae.config.episodes import EpisodeSection
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import EncoderSection, LearnerSection, PretrainConfig, TrainConfig, VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.evaluation.class_interval import ClassTally
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.training.episode_terms import EpisodeTerms
from metagvae.training.pretraining import PictureDraws, PictureTerms
from metagvae.training.step import StepInputs, TrainingStep
from metagvae.training.trainee import build_parts
from metagvae.zoo.build import attribute_sizes, new_encoder, new_vae
from tests.support.banks import stripes
from tests.support.faults import Launch, launched
from tests.support.recorder import listed, recorded

Built = TypeVar("Built", EpisodeSampler, ClassTally)

NAMES = ("auto", "cuda", "cuda:0", "cuda:1")


def remade(module: nn.Module, device: torch.device) -> nn.Module:
    """The work of `nn.Module.to`, with new weights: fake ones cannot be moved in place."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(weight.detach().to(device), weight.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)
    return module


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch, current: int = 0) -> Iterator[None]:
    """Within it, a process that sees two GPUs and has taken number ``current``; no tensor holds any numbers.

    Reading a number back is an error there, and so is an operation on tensors of two devices.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        monkeypatch.setattr(FakeTensorMode, "avoid_device_init", True)  # the mode itself is not to take them for real
        monkeypatch.setattr(nn.Module, "to", remade)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        FakeTensorMode.cache_clear()  # which GPU is the present one is no part of its keys
        yield
        FakeTensorMode.cache_clear()


def moved(built: Built, device: torch.device) -> Built:
    """A sampler or a tally that was built on the CPU, where the sizes of classes can be read."""
    for name, value in vars(built).items():
        if isinstance(value, Tensor):
            setattr(built, name, value.to(device))
    return built


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_gathered_where_the_bank_lies_whatever_the_device_is_called(
    name: str, bank: ImageBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(3, 1, 2)))
    with fake_cuda(monkeypatch):
        device = Device.choose(name, "float32")
        assert device.device == exact(name if name != "auto" else "cuda")
        there = bank.to(device.device)
        loader = EpisodeLoader(there, moved(sampler, device.device), 2, device.device)
        batch = loader[0]
    assert loader._pool is None  # nothing crosses
    assert {x.device for x in (batch.images, batch.classes, batch.indices)} == {there.device}


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_loader_and_a_batch_take_a_device_by_any_name(
    name: str, bank: ImageBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(3, 1, 2)))
    with fake_cuda(monkeypatch):
        there = bank.to("cuda")
        for given in (name, torch.device(name)):
            batch = EpisodeLoader(there, moved(sampler, torch.device("cuda")), 2, given)[0]
            assert isinstance(batch, EpisodeBatch)
            assert batch.to(given) is batch


@pytest.mark.parametrize("local", [0, 1])
def test_each_of_several_ranks_has_its_own_gpu(local: int, bank: ImageBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(local))
    ranks = Ranks(local, 2)
    monkeypatch.setattr(ranks, "from_main", lambda content: content)
    monkeypatch.setattr(device_module, "ranks", lambda: ranks)
    sampler = EpisodeSampler(bank, Episodes(EpisodeShape(3, 1, 2)))
    with fake_cuda(monkeypatch, current=local):
        device = Device.choose("auto", "float32").device
        loader = EpisodeLoader(bank.to(device), moved(sampler, device), 2, device)
        assert loader[0].images.device == device == torch.device("cuda", local)
    assert loader._pool is None


LEARNING: list[tuple[str, dict[str, Any]]] = [
    ("prototypes", {}),
    ("prototypes", {"distance": "cosine", "roles": "every"}),
    ("ridge", {}),
    ("maml", {}),
    ("maml", {"first_order": True, "inner_steps": 2}),
    ("anil", {}),
    ("statistician", {}),
    ("statistician", {"objective": "homoencoder", "excitation": 1.0, "inhibition": 1.0, "mixup": 0.2}),
]
GUIDANCE: list[list[dict[str, Any]]] = [
    [],
    [{"name": "deformable_pca"}],
    [{"name": "deformable_pca", "likelihood": "bernoulli", "unit_norm": 1.0}],
    [{"name": "excitation_inhibition", "attributes": {"third": 2}}],
    [{"name": "excitation_inhibition", "attributes": {"third": 2, "class": 3}, "form": "adversarial"}],
    [{"name": "warp_pairs", "inhibition": 1.0}],
    [{"name": "warp_pairs", "distance": "cosine"}],
    [{"name": "auxiliary_contrast"}],
    [{"name": "auxiliary_contrast", "auxiliary": "third", "units": 2}],
]
WARPED = AugmentConfig(
    rotation=20, scale=0.2, shear=0.2, translation=0.1, elastic=0.02, flip=0.5, brightness=0.1, stroke=0.3
)
SEEN = replace(
    WARPED,
    capture=CaptureConfig(fit=0.5, margin=0.2, offset=0.5, pen=0.1, resolution=8, blur=0.1, contrast=0.2, noise=0.1),
)


def taken(
    module: nn.Module, terms: Callable[[StepInputs], dict[str, Tensor]], device: Device, whole: bool
) -> Callable[[StepInputs], object]:
    """A whole step as a GPU takes it, with its fused optimiser, or the loss terms alone in the device's precision."""
    if whole:
        step = TrainingStep(module, terms, OptimSection(), Share(), device, str, fused=True)
        return lambda inputs: step(inputs, 0, 1e-3, 0)

    def forward(inputs: StepInputs) -> object:
        with device.precision():
            return terms(inputs)

    return forward


META = Device(torch.device("meta"), autocast=False)


@pytest.fixture
def fused_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch allows its fused optimiser on devices of a list; its shape function is there for meta."""
    optimizer = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta", "cpu"])


class EpisodeWork:
    """A step of `metagvae train` on pictures that lie on the device, from the loader's draw to the new weights."""

    def __init__(self, learner: str, options: dict[str, Any], episodes: EpisodeSection, **rest: Any) -> None:
        section = EncoderSection(
            width=rest.pop("width", 8), latent=16, norm="support" if learner == "maml" else "running"
        )
        chosen = LearnerSection(learner, options)
        self.freeze, classes = rest.pop("freeze", False), rest.pop("classes", episodes.way + 1)
        self.config = TrainConfig(encoder=section, learner=chosen, episodes=episodes, **rest)
        self.bank = stripes(classes=classes, per_class=episodes.shot + episodes.query, size=28)
        self.sampler = episodes.sampler(episodes.bank(self.bank), 0, "train", False)  # on the CPU: it reads sizes

    def on(self, device: Device, whole: bool) -> Callable[[], object]:
        """The work of a step, or of its loss terms alone."""
        tasks, bank = self.config.episodes.tasks, self.bank.to(device.device)
        parts = build_parts(self.config, self.bank)
        parts.learner.encoder.requires_grad_(not self.freeze)
        modules = nn.ModuleList([parts.learner, *([parts.vae] if parts.vae else [])]).train()
        device.place(modules)
        loader = EpisodeLoader(bank, moved(self.sampler, device.device), tasks, device.device)
        terms = EpisodeTerms(self.config, parts, bank, device)
        take = taken(modules, terms, device, whole)
        loader[0]  # numbers are drawn for many steps at once

        def work() -> object:
            batch = loader[1]
            inputs: StepInputs = {"images": batch.images, "classes": batch.classes, "indices": batch.indices}
            inputs["progress"] = 0.5
            return take(inputs)

        work()  # the first one makes the optimiser's state
        return work


SMALL = EpisodeSection(way=4, shot=1, query=2, tasks=2)


@pytest.mark.parametrize(("learner", "options"), LEARNING)
def test_no_learners_step_waits_for_the_host(learner: str, options: dict[str, Any], fused_on_meta: None) -> None:
    record = recorded(EpisodeWork(learner, options, SMALL, augment=WARPED).on(META, whole=True))
    assert record.kernels["_fused_adamw_"] == 1
    assert not record.waits, listed(record.waits)


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("pictures as a camera sees them", {"augment": SEEN}),
    ("pictures as classes", {"episodes": EpisodeSection(way=4, shot=1, query=2, tasks=2, classes="pictures")}),
    (
        "within an attribute",
        {"episodes": EpisodeSection(way=2, shot=1, query=2, tasks=2, within=Within("third", 0.5, True)), "classes": 9},
    ),
    ("the encoder frozen", {"freeze": True, "learner": "ridge"}),
    ("guided", {"mode": "guided", "vae": VAESection(guidance=[{"name": "deformable_pca"}], decoder_width=8)}),
    (
        "guided by views",
        {"mode": "guided", "views": 2, "vae": VAESection(guidance=[{"name": "warp_pairs"}], decoder_width=8)},
    ),
]


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in KINDS])
def test_no_kind_of_episode_waits_for_the_host(changes: dict[str, Any], fused_on_meta: None) -> None:
    given = {"augment": WARPED, "episodes": SMALL, "learner": "prototypes", **changes}
    record = recorded(EpisodeWork(given.pop("learner"), {}, given.pop("episodes"), **given).on(META, whole=True))
    assert not record.waits, listed(record.waits)


# not MAML's: gradients of fake CUDA tensors ask for a driver
@pytest.mark.parametrize(("learner", "options"), [pair for pair in LEARNING if pair[0] != "maml"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_tensors_of_two_devices_meet_in_a_learners_step(
    learner: str, options: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = EpisodeWork(learner, options, SMALL, augment=WARPED)
    with fake_cuda(monkeypatch):
        record = recorded(made.on(Device.choose("cuda", precision), whole=False), "cuda")
    assert not record.waits, listed(record.waits)


class PictureWork:
    """A step of `metagvae pretrain` on pictures that lie on the device."""

    def __init__(
        self, guidance: list[dict[str, Any]], augment: AugmentConfig, backbone: str = "conv4", width: int = 8
    ) -> None:
        compared = ("warp_pairs", "auxiliary_contrast")
        views = 2 if any(one["name"] in compared for one in guidance) else 1
        decoder = "ding" if backbone == "ding" else "upsampling"
        vae = VAESection(guidance=guidance, decoder=decoder, decoder_width=width, warm_up=5)
        encoder = EncoderSection(width=width, latent=16, backbone=backbone)
        self.config = PretrainConfig(encoder=encoder, vae=vae, augment=augment, views=views, batch=8)
        self.bank = stripes(size=28)

    def on(self, device: Device, whole: bool) -> Callable[[], object]:
        bank, config = self.bank.to(device.device), self.config
        vae = new_vae(new_encoder(config.encoder, config.vae, bank, 0), config.vae, attribute_sizes(bank)).train()
        device.place(vae)
        take = taken(vae, PictureTerms(config, vae, bank, device), device, whole)
        drawn = PictureDraws(config, bank, device, Share(0, config.batch, config.batch))
        drawn(0)  # the order of an epoch crosses once

        def work() -> object:
            return take(drawn(1))

        work()
        return work


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("augment", [WARPED, AugmentConfig()], ids=["warped", "plain"])
def test_no_guidances_step_waits_for_the_host(
    guidance: list[dict[str, Any]], augment: AugmentConfig, fused_on_meta: None
) -> None:
    record = recorded(PictureWork(guidance, augment, "conv4", 8).on(META, whole=True))
    assert record.kernels["_fused_adamw_"] == 1
    assert not record.waits, listed(record.waits)


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_no_tensors_of_two_devices_meet_in_a_guidances_step(
    guidance: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = PictureWork(guidance, WARPED, "conv4", 8)
    with fake_cuda(monkeypatch):
        record = recorded(made.on(Device.choose("cuda", "bfloat16"), whole=False), "cuda")
    assert not record.waits, listed(record.waits)


MEASURED: list[tuple[str, dict[str, Any]]] = [
    *((name, {"learner": name}) for name in ("prototypes", "ridge", "anil", "statistician")),
    ("maml", {"learner": "maml", "norm": "support"}),
    ("prototypes, normalised by the support", {"learner": "prototypes", "norm": "support"}),
    ("prescribed episodes", {"learner": "ridge", "prescribed": True}),
    ("quarter turns", {"learner": "prototypes", "rotations": True, "norm": "support"}),
    ("within an attribute", {"learner": "prototypes", "within": Within("third", 0.5), "way": 2}),
]


class Measuring:
    """A chunk of an evaluation, from the draw to the share of queries got wrong, its frozen features at hand."""

    def __init__(
        self, learner: str, norm: str = "running", way: int = 4, prescribed: bool = False, **options: Any
    ) -> None:
        self.bank, self.name, self.norm, self.way = stripes(classes=9, per_class=4, size=28), learner, norm, way
        drawn = Episodes(EpisodeShape(way, 1, 2), **options)
        if prescribed:
            drawn = replace(drawn, fixed=FixedEpisodes(EpisodeSampler(self.bank, drawn).span(0, 8)))
        self.evaluator = Evaluator(self.bank, drawn, 8, device=Device.choose("cpu", "float32"))
        self.sampler, self.tally = self.evaluator.sampler(way, 1), ClassTally(self.bank)  # these read sizes

    def on(self, device: Device) -> Callable[[], object]:
        evaluator, sampler, tally = self.evaluator, self.sampler, moved(self.tally, device.device)
        sampler = sampler.to(device.device) if isinstance(sampler, FixedEpisodes) else moved(sampler, device.device)
        evaluator.device, evaluator.bank = device, self.bank.to(device.device)
        encoder = Encoder(EncoderConfig(width=8, latent=16, norm=self.norm))
        learner = make_learner(self.name, encoder, self.way).eval()
        device.place(learner)
        features = evaluator._features(learner)
        return lambda: evaluator._wrong(learner, sampler.span(2, 4), features, tally)


@pytest.mark.parametrize("given", [pytest.param(given, id=name) for name, given in MEASURED])
def test_no_chunk_of_an_evaluation_waits_for_the_host(given: dict[str, Any]) -> None:
    record = recorded(Measuring(**given).on(META))
    assert record.total > 20
    assert not record.waits, listed(record.waits)


@pytest.mark.parametrize("given", [pytest.param(given, id=name) for name, given in MEASURED if name != "maml"])
def test_no_tensors_of_two_devices_meet_in_an_evaluation(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Measuring(**given)
    with fake_cuda(monkeypatch):
        record = recorded(made.on(Device.choose("cuda", "bfloat16")), "cuda")
    assert not record.waits, listed(record.waits)


# 5-shot prototypes and the paper's guidance on Conv-4, no warps; where the pictures were warped it takes some 20 more
LARGE = EpisodeSection(way=20, shot=5, query=15, tasks=1)
BUDGETS: list[tuple[str, Callable[[], EpisodeWork | PictureWork], int]] = [
    ("prototypes", lambda: EpisodeWork("prototypes", {}, LARGE, augment=AugmentConfig(), width=64), 150),
    ("prototypes, warped", lambda: EpisodeWork("prototypes", {}, LARGE, augment=WARPED, width=64), 190),
    ("ridge", lambda: EpisodeWork("ridge", {}, LARGE, augment=AugmentConfig(), width=64), 150),
    (
        "maml, all tasks in one pass",
        lambda: EpisodeWork(
            "maml", {}, EpisodeSection(way=5, shot=1, query=5, tasks=4), augment=AugmentConfig(), width=64
        ),
        600,
    ),
    ("anil", lambda: EpisodeWork("anil", {}, SMALL, augment=AugmentConfig()), 200),
    ("statistician", lambda: EpisodeWork("statistician", {}, SMALL, augment=AugmentConfig()), 330),
    ("plain VAE", lambda: PictureWork([], AugmentConfig(), "conv4", 32), 150),
    ("deformable PCA", lambda: PictureWork([{"name": "deformable_pca"}], AugmentConfig(), "conv4", 32), 250),
    ("deformable PCA, ding", lambda: PictureWork([{"name": "deformable_pca"}], AugmentConfig(), "ding", 64), 250),
]


@pytest.mark.parametrize(("work", "most"), [pytest.param(work, most, id=name) for name, work, most in BUDGETS])
def test_a_step_is_of_few_kernels(
    work: Callable[[], EpisodeWork | PictureWork], most: int, fused_on_meta: None
) -> None:
    record = recorded(work().on(META, whole=True))
    assert record.total <= most, record.kernels.most_common()


def test_a_process_that_saw_fake_devices_can_still_fork(tmp_path: Path) -> None:
    with FakeTensorMode():
        torch.zeros(1, device="cuda")
    assert launched(lambda: torch.zeros(1, requires_grad=True).sum().backward(), tmp_path) == Launch(0, "")
