"""Distillation: against the paper's equations written out, what it leaves alone, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from episodes import AugmentConfig, ClassWarp, EpisodeBatch, InputError, make_batch
from episodes.batch_share import Share
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import EncoderSection, LearnerSection, TrainConfig
from metagvae.config.teacher import TeacherSection
from metagvae.learners.base import FeatureLearner
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import Interrupted
from metagvae.runs.states import States
from metagvae.storage.tensors import read_tensors
from metagvae.training.captured_step import WARM, CapturedStep
from metagvae.training.distillation import Teacher, distillation_loss
from metagvae.training.episode_terms import EpisodeTerms
from metagvae.training.episodic import train
from metagvae.training.step import StepInputs, TrainingStep
from metagvae.training.trainee import build_parts
from tests.support.banks import stripes
from tests.support.tape import Tape
from tests.support.trainings import assert_same_run, bank, do_train, train_config

RUNNING = EncoderSection(width=8, latent=8, features=["backbone"])
HALF = LearnerSection("prototypes", {"normalise": 0.5, "scale": 2.0})
EVERY = LearnerSection("prototypes", {"normalise": 0.5, "scale": 2.0, "roles": "every"})


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two short runs of prototypes whose networks keep running statistics."""
    folder, names = tmp_path_factory.mktemp("teachers"), []
    for seed in (1, 2):
        names.append(str(folder / f"seed{seed}"))
        quiet = ValidationSection(every=0)
        do_train(train_config(Path(names[-1]), 4, encoder=RUNNING, learner=HALF, validation=quiet, run_seed=seed))
    return names


def taught(folder: Path, teachers: list[str], steps: int = 6, **changes: Any) -> TrainConfig:
    section = TeacherSection(teachers, **{key: changes.pop(key) for key in ("share", "temperature") if key in changes})
    settings: dict[str, Any] = {
        "learner": EVERY,
        "validation": ValidationSection(every=0),
        "teacher": section,
        **changes,
    }
    return train_config(folder, steps, **settings)


def batch(shot: int = 1) -> EpisodeBatch:
    shape = EpisodeSection(3, shot, 2 * shot, 2)
    return make_batch(bank(), shape.sampler(bank(), 0, "train", False).span(0, 2))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_and_its_gradient_are_the_papers(temperature: float) -> None:
    """T^2 sum p log(p / q); its slope by a logit is T (q - p), eq. 2 of the paper times T^2."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 7, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    student.requires_grad_()
    loss = distillation_loss(student, teacher, temperature)
    loss.backward()
    p, q = softmax(teacher.numpy() / temperature), softmax(student.detach().numpy() / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    assert expected > 0.01
    # the loss is taken in float32
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), temperature * (q - p) / 14, rtol=1e-4, atol=1e-6)


def written_out(features: list[np.ndarray], shot: int, scale: float) -> list[np.ndarray]:
    """Logits of prototypes on half-normalised features ``[T, N, K + Q, D]`` side by side, for each role, float64."""
    beside = np.concatenate(features, -1).astype(np.float64)
    half = beside / np.sqrt(np.linalg.norm(beside, axis=-1, keepdims=True))
    found = []
    for turn in range(0, half.shape[2], shot):
        turned = np.roll(half, -turn, 2)
        prototypes = turned[:, :, :shot].mean(2)
        queries = turned[:, :, shot:].reshape(len(half), -1, half.shape[-1])
        found.append(-scale * np.square(queries[:, :, None] - prototypes[:, None]).sum(-1))
    return found


@pytest.mark.parametrize("shot", [1, 2])
def test_every_role_is_taught_by_the_teachers_joined_and_only_the_student_learns(
    tmp_path: Path, teachers: list[str], shot: int
) -> None:
    episode = batch(shot)
    config = taught(tmp_path / "run", teachers, share=0.3, temperature=2.0)
    assert config.teacher is not None
    parts = build_parts(config, bank(), teacher=Teacher(config.teacher))
    student, teacher = parts.learner.train(), parts.teacher
    assert isinstance(student, FeatureLearner)
    assert teacher is not None
    before = {key: value.clone() for key, value in teacher.learner.state_dict().items()}
    own, _ = student(episode)
    terms = teacher.terms(student, episode)
    sum(terms.values(), torch.zeros(())).backward()

    images = episode.images
    encoders = [student.encoder.eval(), *(zoo.open(name).encoder() for name in teachers)]
    with torch.no_grad():
        features = [encoder(images.flatten(0, 2)).view(*images.shape[:3], -1).numpy() for encoder in encoders]
    told, said = (written_out(part, shot, 2.0) for part in (features[1:], features[:1]))
    pairs = [(softmax(a / 2.0), softmax(b / 2.0)) for a, b in zip(told, said, strict=True)]
    assert len(pairs) == 3
    expected = np.mean([4 * (p * np.log(p / q)).sum(-1).mean() for p, q in pairs])
    assert float(terms["teacher"].detach()) == pytest.approx(0.3 * expected, rel=1e-3)
    assert float(terms["episodes"].detach()) == pytest.approx(0.7 * float(own.detach()), rel=1e-6)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.encoder.backbone.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.learner.parameters())
    after = teacher.learner.state_dict()
    assert any("running_mean" in key for key in after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_roles_of_given_are_taught_once(tmp_path: Path, teachers: list[str]) -> None:
    config = taught(tmp_path / "run", teachers[:1], learner=HALF)
    assert config.teacher is not None
    teacher = Teacher(config.teacher)
    student = build_parts(config, bank(), teacher=teacher).learner.train()
    assert isinstance(student, FeatureLearner)
    episode = batch()
    (logits,) = student.logits_by_role(episode, student.takes_every_role)
    told = zoo.open(teachers[0]).learner()
    expected = distillation_loss(logits, told.predict(told.adapt(episode.support), episode.query))
    term = teacher.terms(student, episode)["teacher"]
    assert float(term.detach()) == pytest.approx(0.5 * float(expected.detach()), rel=1e-5)


def test_without_a_share_training_is_bit_identical_and_with_one_it_is_not(tmp_path: Path, teachers: list[str]) -> None:
    for name, share in (("zero", 0.0), ("half", 0.5)):
        do_train(taught(tmp_path / name, teachers, share=share))
    do_train(replace(taught(tmp_path / "plain", teachers), teacher=None))
    weights = {name: read_tensors(tmp_path / name / "learner.safetensors") for name in ("zero", "half", "plain")}
    for key, value in weights["plain"].items():
        assert torch.equal(weights["zero"][key], value)
    assert any(not torch.equal(weights["half"][key], value) for key, value in weights["plain"].items())
    lines = next(iter(read_metrics(tmp_path / "half")))
    assert lines["loss"] == pytest.approx(lines["episodes"] + lines["teacher"])
    # nothing of the teacher is kept in the run
    states = [States(tmp_path / name / "state").load() for name in ("half", "plain")]
    assert states[0] is not None
    assert states[1] is not None
    assert states[0]["module"].keys() == states[1]["module"].keys()
    assert weights["half"].keys() == weights["plain"].keys()


def test_a_learner_comes_nearer_to_its_teacher(tmp_path: Path, teachers: list[str]) -> None:
    """By labels alone it stays four times as far off, after as many steps of the same episodes."""
    apart = []
    for share in (1.0, 0.0):
        folder = tmp_path / str(share)
        optim = OptimSection(steps=30, lr=0.005)
        do_train(taught(folder, teachers, share=share, optim=optim))
        learner, told = zoo.open(folder).learner(), Teacher(TeacherSection(teachers)).learner
        with torch.no_grad():
            apart.append(float(distillation_loss(learner(batch())[1], told(batch())[1])))
    assert 4 * apart[0] < apart[1]


def test_student_and_teacher_see_the_same_images(
    tmp_path: Path, teachers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, Tensor]] = []
    plain = FeatureLearner.logits_by_role

    def noted(self: FeatureLearner, batch: EpisodeBatch, every: bool) -> list[Tensor]:
        seen.append((self.training, batch.images.clone()))
        return plain(self, batch, every)

    monkeypatch.setattr(FeatureLearner, "logits_by_role", noted)
    shape = EpisodeSection(3, 1, 2, 2, class_warp=ClassWarp(flip=0.5))
    do_train(taught(tmp_path / "run", teachers, 3, episodes=shape, augment=AugmentConfig(rotation=20)))
    assert [training for training, _ in seen] == [True, False] * 3
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(seen[::2], seen[1::2], strict=True))
    assert not torch.equal(seen[0][1], seen[2][1])


def test_a_run_with_a_teacher_stops_and_goes_on_with_the_same_one(tmp_path: Path, teachers: list[str]) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(teachers[0], mine)
    names = [str(mine), teachers[1]]
    do_train(taught(tmp_path / "whole", names))
    with pytest.raises(Interrupted):
        do_train(taught(tmp_path / "run", names, run_stop_after=3))
    with pytest.raises(InputError, match="another config: taught_by, teacher differ"):
        do_train(taught(tmp_path / "run", teachers, run_resume=True))
    with pytest.raises(InputError, match="another config: teacher differ"):
        do_train(taught(tmp_path / "run", names, share=0.6, run_resume=True))
    shutil.rmtree(mine)
    shutil.copytree(teachers[1], mine)  # of that name, and trained otherwise
    with pytest.raises(InputError, match="another config: taught_by differ"):
        do_train(taught(tmp_path / "run", names, run_resume=True))
    shutil.rmtree(mine)
    shutil.copytree(teachers[0], mine)
    do_train(taught(tmp_path / "run", names, run_resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "run", "learner.safetensors")


def test_a_run_of_a_version_that_knew_no_teacher_goes_on_and_with_one_does_not(
    tmp_path: Path, teachers: list[str]
) -> None:
    config = replace(taught(tmp_path / "run", teachers), teacher=None)
    with pytest.raises(Interrupted):
        do_train(replace(config, run=replace(config.run, stop_after=3)))
    path = tmp_path / "run" / "config.yaml"
    noted = yaml.safe_load(path.read_text())
    assert noted.pop("teacher", 0) is None
    path.write_text(yaml.safe_dump(noted))
    with pytest.raises(InputError, match="another config: taught_by, teacher differ"):
        do_train(taught(tmp_path / "run", teachers, run_resume=True))
    do_train(replace(config, run=replace(config.run, resume=True)))


def test_the_card_counts_what_the_teachers_were_trained_on(tmp_path: Path, teachers: list[str]) -> None:
    """A teacher of other classes passes on what it knows of them: an evaluation on these must be refused."""
    other = replace(stripes(12, 8, 16, seed=5), class_names=tuple(f"other {number}" for number in range(12)))
    strange = str(tmp_path / "strange")
    train(train_config(Path(strange), 2, encoder=RUNNING, learner=HALF, validation=ValidationSection(0)), other)
    do_train(taught(tmp_path / "run", [teachers[0], strange], 2, share=0.25))
    card, marks = zoo.read_card(tmp_path / "run"), set(zoo.read_card(strange).trained_images)
    (names,) = card.trained_classes.values()
    assert set(names) == {*other.class_names, *bank().class_names}
    assert marks
    assert marks < set(card.trained_images)
    assert "taught by seed1+strange (share 0.25, T 1)" in card.method
    assert [told["run"] for told in card.details["teacher"]] == ["seed1", "strange"]


def test_teachers_of_one_folder_name_are_all_on_the_card(tmp_path: Path, teachers: list[str]) -> None:
    names = [str(shutil.copytree(teacher, tmp_path / str(number) / "net")) for number, teacher in enumerate(teachers)]
    do_train(taught(tmp_path / "run", names, 2))
    card = zoo.read_card(tmp_path / "run")
    assert "taught by net+net" in card.method
    marks = [told["learner"] for told in card.details["teacher"]]
    assert len(set(marks)) == 2


def test_teachers_of_unlike_heads_are_refused(tmp_path: Path, teachers: list[str]) -> None:
    """One head stands on all features, and would be the first teacher's in silence."""
    angles = LearnerSection("prototypes", {"distance": "cosine"})
    quiet = ValidationSection(every=0)
    do_train(train_config(tmp_path / "angles", 2, encoder=RUNNING, learner=angles, validation=quiet))
    with pytest.raises(InputError, match="heads whose distance is 'euclidean' and 'cosine'"):
        do_train(taught(tmp_path / "run", [teachers[0], str(tmp_path / "angles")]))


def test_a_step_with_a_teacher_can_be_captured(tmp_path: Path, teachers: list[str]) -> None:
    """Recorded on a tape that refuses whatever waits for the device, and replayed to the same weights."""
    device, pictures = Device.choose("cpu", "float32"), bank()
    ended = []
    for captured in (False, True):
        config = taught(tmp_path / "run", teachers, encoder=RUNNING)
        assert config.teacher is not None
        parts = build_parts(config, pictures, teacher=Teacher(config.teacher))
        device.place(parts.learner)
        terms = EpisodeTerms(config, parts, pictures, device)
        step = TrainingStep(parts.learner.train(), terms, OptimSection(), Share(), device, str, fused=True)
        take: Callable[..., Any] = CapturedStep(step, Tape()) if captured else step
        sampler, lines = config.episodes.sampler(pictures, 0, "train", False), []
        for number in range(WARM + 3):
            drawn = make_batch(pictures, sampler.span(2 * number, 2))
            progress = torch.full((), number / 10)
            inputs: StepInputs = {"images": drawn.images, "classes": drawn.classes, "indices": drawn.indices}
            lines.append(take({**inputs, "progress": progress}, number, 1e-2 / (number + 1), number))
        ended.append((lines, parts.learner.state_dict()))
    (eager, one), (replayed, other) = ended
    for a, b in zip(eager, replayed, strict=True):
        torch.testing.assert_close(b["teacher"], a["teacher"], rtol=1e-5, atol=1e-6)
    assert len({float(terms["teacher"]) for terms in replayed}) == WARM + 3
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.1}, r"teacher.share must be in \[0, 1\]; received 1.1"),
        ({"share": -0.1}, r"teacher.share must be in \[0, 1\]"),
        ({"share": float("nan")}, r"teacher.share must be in \[0, 1\]"),
        ({"temperature": 0.0}, r"teacher.temperature must be in \[0.01, 100\]; received 0.0"),
        ({"temperature": 1e300}, "teacher.temperature"),
        ({"temperature": float("nan")}, "teacher.temperature"),
        ({"sources": []}, "received none"),
        ({"sources": ["runs/a", "runs/a"]}, "different folders"),
    ],
)
def test_a_section_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TeacherSection(**{"sources": ["runs/a"], **settings})


def test_a_teacher_that_cannot_teach_is_refused_before_a_folder_is_made(
    tmp_path: Path, teachers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = ValidationSection(every=0)
    do_train(train_config(tmp_path / "ridge", 2, "ridge", validation=quiet))
    large = train_config(tmp_path / "large", 2, learner=HALF, validation=quiet)
    train(large, stripes(12, 8, 20))
    do_train(
        train_config(tmp_path / "support", 2, encoder=replace(RUNNING, norm="support"), learner=HALF, validation=quiet)
    )

    def refused(message: str, *names: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            do_train(taught(tmp_path / "run", [str(tmp_path / name) for name in names], **changes))
        assert not (tmp_path / "run").exists()

    refused("no encoder '.*nowhere'", "nowhere")
    refused("the teacher .*large takes pictures of 1 channel.*20 x 20", "large")
    refused("the teacher .*ridge is a run of 'ridge', and only prototypes", "ridge")
    refused("different folders", "large", "ridge/../large")
    refused("the teacher .*support is a run of 'prototypes', and only", "support")
    refused("a teacher is for the learner 'prototypes'.*received 'maml'", "large", learner=LearnerSection("maml"))
    with pytest.raises(InputError, match="is no run folder"):
        do_train(taught(tmp_path / "run", ["warp-protonet-omniglot"]))
    # what needs no images is said before any are decoded
    monkeypatch.setattr("episodes.datasets.Dataset.load", lambda *a: pytest.fail("images were decoded"))
    with pytest.raises(InputError, match="no encoder 'nowhere'"):
        train(taught(tmp_path / "run", ["nowhere"]))
