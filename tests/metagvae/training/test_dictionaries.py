"""Dictionaries learnt by the command: run folders, resumption, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from episodes import AugmentConfig, InputError, to_float
from metagvae import FewShotClassifier, zoo
from metagvae.cli import main
from metagvae.config.dictionary import DictionarySection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import (
    DataConfig,
    EncoderSection,
    PretrainConfig,
    VAESection,
)
from metagvae.encoders.sparse import SparseEncoder
from metagvae.encoders.sparse_coding import energy, sparse_codes
from metagvae.report import write_report
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.signals import Interrupted
from metagvae.storage.tensors import read_tensors
from metagvae.training.dictionaries import learn_dictionary
from metagvae.training.pretraining import pretrain

SMALL: dict[str, Any] = {"atoms": 16, "grid": 2, "steps": 20, "patches": 4, "components": 32}


def _config(folder: Path, steps: int = 12, run: dict[str, Any] | None = None, **dictionary: Any) -> PretrainConfig:
    return PretrainConfig(
        data=DataConfig(name="glyphs"),
        dictionary=DictionarySection(
            **{"atoms": 16, "grid": 2, "steps": 20, "patches": 4, "components": 32, **dictionary}
        ),
        batch=64,
        optim=OptimSection(steps=steps),
        run=RunSection(folder=str(folder), device="cpu", log_every=4, **(run or {})),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "glyphs-sparse"
    learn_dictionary(_config(folder))
    return folder


def test_a_run_is_left_and_its_encoder_opens(finished: Path) -> None:
    encoder = zoo.load_encoder(finished)
    assert isinstance(encoder, SparseEncoder)
    assert encoder(torch.rand(2, 1, 28, 28)).shape == (2, 32)
    card = zoo.read_card(finished)
    assert "16 atoms learnt online, 12 steps of 64 x 4 patches" in card.method
    assert card.trained_classes["glyphs"]
    lines = list(read_metrics(finished))
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert all(0 < line["left"] < 1 and line["active"] > 0 for line in lines)


def test_it_has_no_decoder_and_says_so(finished: Path) -> None:
    with pytest.raises(InputError, match=r"sparse encoder.s run, which has no decoder"):
        zoo.open(finished).vae()


def test_a_stopped_run_ends_bit_identical(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="after step 3 of 12"):
        learn_dictionary(_config(tmp_path / "a", run={"stop_after": 3}))
    assert not (tmp_path / "a" / "encoder").exists()
    learn_dictionary(_config(tmp_path / "a", run={"resume": "auto"}))
    straight = read_tensors(finished / "encoder" / "model.safetensors")
    resumed = read_tensors(tmp_path / "a" / "encoder" / "model.safetensors")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_strangers_state_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        learn_dictionary(_config(tmp_path / "a", run={"stop_after": 3}))
    state = tmp_path / "a" / "state" / "step-0000003.pt"
    kept = torch.load(state, weights_only=True)
    wrong = {**kept["module"], "dictionary": kept["module"]["dictionary"][:3]}
    for content, says in (
        ({**kept, "module": wrong}, "dictionary"),
        ({**kept, "module": {**kept["module"], "updates": torch.tensor(2)}}, "of step 3 and its dictionary of 2"),
        ({**kept, "module": [1]}, "not of this run"),
        ({**kept, "seconds": float("nan")}, "not of this run"),
    ):
        torch.save(content, state)
        with pytest.raises(InputError, match=says):
            learn_dictionary(_config(tmp_path / "a", run={"resume": True}))


@pytest.mark.parametrize("rule", ["patches", "gaussian", "local"])
def test_learnt_atoms_explain_more_than_those_of_the_controls(finished: Path, tmp_path: Path, rule: str) -> None:
    encoder = learn_dictionary(_config(tmp_path / rule, rule=rule))
    assert torch.allclose(encoder.dictionary.norm(dim=1), torch.ones(16), atol=1e-4)
    assert float(encoder.feature_mean.abs().sum()) > 0
    rows = encoder.patches(to_float(DataConfig(name="glyphs").make().load("validation").images[:50]))
    learnt = zoo.load_encoder(finished)
    assert isinstance(learnt, SparseEncoder)
    energies = [
        float(energy(rows, atoms, sparse_codes(rows, atoms, 0.6, 60), 0.6).mean())
        for atoms in (learnt.dictionary, encoder.dictionary)
    ]
    assert energies[0] < energies[1]


def test_colour_patches_are_whitened(tmp_path: Path) -> None:
    config = _config(tmp_path / "a", whiten=True, side=5, penalty=0.2)
    encoder = learn_dictionary(replace(config, data=DataConfig(name="glyphs")))
    again = zoo.load_encoder(tmp_path / "a")
    assert isinstance(again, SparseEncoder)
    assert torch.equal(again.patches.whitener, encoder.patches.whitener)
    assert float((encoder.patches.whitener - torch.eye(25)).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoder": EncoderSection(width=8)}, "would not look at encoder"),
        ({"vae": VAESection(beta=2.0)}, "would not look at vae"),
        ({"views": 2}, "would not look at views"),
        ({"augment": AugmentConfig(flip=0.5)}, "would not look at augment"),
        ({"optim": OptimSection(steps=5, lr=0.1)}, "takes optim.steps alone"),
        ({"optim": OptimSection(steps=5, precision="bfloat16")}, "computes in float32"),
        ({"batch": 0}, "batch must be >= 1"),
        ({"dictionary": None}, "no dictionary to learn"),
        ({"dictionary": DictionarySection(atoms=0)}, "encoder.atoms must be between"),
        ({"dictionary": DictionarySection(side=90)}, "encoder.side must be at most the picture's 28"),
    ],
)
def test_what_cannot_work_is_one_sentence(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        learn_dictionary(replace(_config(tmp_path / "a"), **changes))
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="takes a dictionary"):
        pretrain(_config(tmp_path / "a"))
    with pytest.raises(InputError, match="rule must be"):
        DictionarySection(rule="ksvd")
    with pytest.raises(InputError, match="patches from 1"):
        DictionarySection(patches=0)


@pytest.mark.slow
def test_commands_take_a_sparse_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["evaluate", "--encoder", str(finished), f"{finished}+guided-vae-omniglot", "--data", "glyphs"]
    assert main([*line, "--episodes", "20", "--query", "5", "--device", "cpu", "--json", "a.json"]) == 0
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    assert [r["features"] for r in results] == ["codes", "codes"]
    assert results[0]["error"] < 0.6  # 80 % is chance
    page = write_report([str(finished)], episodes=20).read_text()
    assert "The 16 most used of 16 atoms of 9 × 9 pixels" in page
    assert "there is no latent and no decoder" in page
    assert main(["export-encoder", str(finished), str(tmp_path / "sparse.pt2"), "--to", "torch-export"]) == 0
    capsys.readouterr()


def test_the_command_learns_a_dictionary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "b"
    line = ["pretrain", "--data.name", "glyphs", "--dictionary.atoms", "8", "--dictionary.grid", "2"]
    assert main([*line, "--optim.steps", "2", "--run.folder", str(folder), "--run.device", "cpu"]) == 0
    assert "learnt a dictionary" in capsys.readouterr().out
    assert (folder / "figures" / "atoms.png").stat().st_size > 1000


def test_a_classifier_stands_on_sparse_codes(finished: Path) -> None:
    images = torch.zeros(12, 28, 28, dtype=torch.uint8)
    images[:6, 4:24, 12:15] = 255
    images[6:, 12:15, 4:24] = 255
    images = images | torch.randint(0, 40, images.shape, dtype=torch.uint8)
    labels = ["post"] * 6 + ["beam"] * 6
    model = FewShotClassifier(encoder=str(finished)).fit(images.numpy()[::2], labels[::2])
    assert list(model.predict(images.numpy()[1::2])) == labels[1::2]
