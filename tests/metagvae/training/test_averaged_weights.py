"""The mean of the weights: against torch's own, through a training, a stop and a validation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from episodes import InputError
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.episodes import ValidationSection
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import DataConfig, EncoderSection, VAESection
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import Interrupted
from metagvae.runs.states import States
from metagvae.storage.tensors import read_tensors
from metagvae.training.averaged_weights import AveragedWeights
from metagvae.training.pretraining import pretrain
from metagvae.training.stopped import StoppedRun
from metagvae.training.validation import Validation
from tests.support.trainings import assert_same_run, bank, do_train, pretrain_config, train_config


def walk(module: nn.Module, steps: int) -> list[dict[str, torch.Tensor]]:
    """States of a module whose weights wander."""
    states = []
    for _ in range(steps):
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn_like(value))
            else:
                value.add_(1)
        states.append({name: value.clone() for name, value in module.state_dict().items()})
    return states


def test_the_plain_mean_is_that_of_torch() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    theirs, ours = AveragedModel(module, use_buffers=True), AveragedWeights(module, decay=1.0)
    for step, state in enumerate(walk(module, 7)):
        module.load_state_dict(state)
        theirs.update_parameters(module)
        ours.add(step)
    expected = theirs.module.state_dict()
    for name, value in ours.mean.items():
        if value.is_floating_point():
            assert torch.allclose(value, expected[name], atol=1e-6)
    assert ours.mean["1.num_batches_tracked"] == module.state_dict()["1.num_batches_tracked"] == 7


def test_the_exponential_mean_is_the_sum_written_out() -> None:
    """Its first states share evenly until one's share is down to 1 - decay."""
    torch.manual_seed(0)
    module = nn.Linear(2, 2)
    average = AveragedWeights(module, decay=0.75, begin=2)
    states = walk(module, 9)
    for step, state in enumerate(states):
        module.load_state_dict(state)
        average.add(step)
    rows = [state["weight"] for state in states[2:]]
    mean = torch.stack(rows[:4]).mean(0)
    for row in rows[4:]:
        mean = 0.75 * mean + 0.25 * row
    assert average.count == 7
    assert torch.allclose(average.mean["weight"], mean, atol=1e-6)


def test_a_run_keeps_the_mean_of_its_last_steps(tmp_path: Path) -> None:
    """Without validation: of twelve steps, those from the seventh on, as the states of the same run have them."""
    optim = OptimSection(steps=12, lr=0.05, schedule="constant")
    folder = tmp_path / "plain"
    states = []
    for stop in range(7, 12):
        with pytest.raises(Interrupted):
            pretrain(replace(pretrain_config(folder, resume="auto", stop_after=stop), optim=optim), bank())
        state = States(folder / "state").load()
        assert state is not None
        states.append(state["module"])
    last = pretrain(replace(pretrain_config(folder, resume="auto"), optim=optim), bank()).state_dict()
    averaged = OptimSection(steps=12, lr=0.05, schedule="constant", average=1.0, average_from=0.5)
    kept = pretrain(replace(pretrain_config(tmp_path / "mean"), optim=averaged), bank()).state_dict()
    for name, value in kept.items():
        if value.is_floating_point():
            expected = torch.stack([*(state[name] for state in states), last[name]]).mean(0)
            assert torch.allclose(value, expected, atol=1e-5), name
    assert any(not torch.allclose(kept[name], last[name], atol=1e-3) for name in kept)


def test_a_stopped_run_is_exported_as_the_mean_that_it_would_keep(tmp_path: Path) -> None:
    """Before the mean has begun, as its weights."""
    optim = OptimSection(steps=6, lr=0.05, schedule="constant", average=1.0, average_from=0.5)
    data, vae = DataConfig("sprites", size=16, options={"count": 60}), VAESection(decoder_width=4)
    for stop, part in ((2, "module"), (5, "average")):
        config = pretrain_config(tmp_path / "run", resume="auto", stop_after=stop)
        with pytest.raises(Interrupted):
            pretrain(replace(config, data=data, vae=vae, optim=optim))
        state = States(tmp_path / "run" / "state").load()
        assert state is not None
        expected = state["average"]["mean"] if part == "average" else state["module"]
        found = StoppedRun(tmp_path / "run").vae().state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items()), part


def test_stopped_at_three_places_ends_bit_identical(tmp_path: Path) -> None:
    optim = OptimSection(steps=12, average=0.8, average_from=0.3)
    encoder = EncoderSection(width=8, latent=8, features=["backbone"])
    do_train(train_config(tmp_path / "whole", encoder=encoder, optim=optim))
    for place in (2, 5, 9):
        config = train_config(tmp_path / "stopped", encoder=encoder, optim=optim, run_resume="auto")
        config.run.stop_after = place
        with pytest.raises(Interrupted):
            do_train(config)
    do_train(train_config(tmp_path / "stopped", encoder=encoder, optim=optim, run_resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "learner.safetensors")


def test_validation_measures_the_mean_and_training_goes_on_from_the_weights(tmp_path: Path) -> None:
    """The losses of a run with a mean are those without; its validation errors are those of what it exports."""
    rough = {"steps": 12, "lr": 0.1, "schedule": "constant"}
    do_train(train_config(tmp_path / "plain", optim=OptimSection(**rough)))
    do_train(train_config(tmp_path / "mean", optim=OptimSection(**rough, average=0.9)))
    lines = [[line for line in read_metrics(tmp_path / name) if "loss" in line] for name in ("plain", "mean")]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    kept, plain = (read_tensors(tmp_path / name / "learner.safetensors") for name in ("mean", "plain"))
    assert any(not torch.equal(kept[name], plain[name]) for name in kept)
    best = json.loads((tmp_path / "mean" / "best.json").read_text())
    errors = [line["validation_error"] for line in read_metrics(tmp_path / "mean") if "validation_error" in line]
    assert best["validation_error"] == min(errors)
    shape = ValidationSection(4, 3, 1, 2, 20)
    again = Validation(shape, 0, False, bank("validation"), Device.choose("cpu", "float32"))
    assert again.error(zoo.open(tmp_path / "mean").learner()) == pytest.approx(min(errors), abs=1e-6)


def test_no_mean_where_none_is_asked_and_no_state_without_one(tmp_path: Path) -> None:
    config = train_config(tmp_path / "run", validation=ValidationSection(0), run_stop_after=5)
    with pytest.raises(Interrupted):
        do_train(config)
    assert "average" not in (States(tmp_path / "run" / "state").load() or {})
    with pytest.raises(InputError, match=r"another config: optim"):
        do_train(train_config(tmp_path / "run", optim=OptimSection(steps=12, average=0.9), run_resume=True))


@pytest.mark.parametrize(("average", "begin"), [(-0.1, 0.0), (1.1, 0.0), (0.9, 1.0), (0.9, -0.1)])
def test_impossible_means_are_refused(average: float, begin: float) -> None:
    with pytest.raises(InputError, match=r"optim.average must be in \[0, 1\]"):
        OptimSection(average=average, average_from=begin)
