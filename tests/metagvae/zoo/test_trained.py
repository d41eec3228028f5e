"""Trained things by name: one handle, files read once, kinds of encoders by their registry."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from episodes import ImageBank, InputError
from episodes.untrusted import plain_files
from metagvae import zoo
from metagvae.config.sections import EncoderSection
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig
from metagvae.training.episodic import train
from metagvae.training.pretraining import pretrain
from tests.support.trainings import pretrain_config, train_config


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.banks import stripes

    folder = tmp_path_factory.mktemp("source") / "vae"
    pretrain(pretrain_config(folder), stripes())
    return folder


def test_a_guided_training_opens_its_source_once(
    source: Path, bank: ImageBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = plain_files.read_text

    def counted(path: Path, *rest: object) -> str:
        if Path(path).is_relative_to(source):
            read.append(Path(path).name)
        return plain(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(plain_files, "read_text", counted)
    config = train_config(tmp_path / "run")
    train(replace(config, mode="guided", encoder=EncoderSection(source=str(source))), bank, bank)
    assert read.count("config.yaml") == 1  # of the run
    assert read.count("config.json") == 1  # of its encoder, the card in it


def test_what_a_handle_says(source: Path) -> None:
    trained = zoo.open(source)
    assert zoo.open(trained) is trained
    assert trained.is_run
    assert trained.config["kind"] == "pretrain"
    assert trained.data.name
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(trained.encoder()(x), trained.vae().encoder(x))
    with pytest.raises(InputError, match=r"no learner\.safetensors"):
        trained.learner()
    shipped = zoo.open("guided-vae-omniglot")
    assert not shipped.is_run
    assert shipped.encoder(["content"]).features == ["content"]
    with pytest.raises(InputError, match="an encoder without its decoder"):
        shipped.vae()
    with pytest.raises(InputError, match="none of the shipped ones"):
        zoo.open("nothing")


@dataclass
class MeanConfig(EncoderConfig):
    """Settings of the encoder below."""

    grid: int = 4


@ENCODERS.register
class MeanEncoder(Encoder):
    """Grey means over a grid of cells; a kind of encoder as a user would add it."""

    name = "mean-of-cells"
    settings = MeanConfig
    has_posterior = False
    trainable = False

    def __init__(self, config: MeanConfig) -> None:
        nn.Module.__init__(self)
        self.config: MeanConfig = config
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.get_buffer("scale") * nn.functional.adaptive_avg_pool2d(images, self.config.grid).flatten(1)


def test_a_kind_of_ones_own_is_saved_and_opened(tmp_path: Path) -> None:
    encoder = MeanEncoder(MeanConfig(grid=3, units={"content": list(range(64))}))
    encoder.scale.fill_(5.0)
    zoo.save_encoder(encoder, tmp_path / "mean")
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["kind"] == "mean-of-cells"
    again = zoo.load_encoder(tmp_path / "mean")
    assert isinstance(again, MeanEncoder)
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(again(x), encoder(x))


def test_an_unknown_kind_is_one_sentence(tmp_path: Path) -> None:
    zoo.save_encoder(Encoder(EncoderConfig(width=8, latent=4)), tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    content = json.loads(path.read_text())
    for kind in ("mirror", 3, None, ["conv"]):
        path.write_text(json.dumps({**content, "kind": kind}))
        with pytest.raises(InputError, match=r"unknown encoder kind .*; known: conv, external"):
            zoo.load_encoder(tmp_path / "a")
    first = {key: value for key, value in content.items() if key != "kind"}  # files of the first format say none
    path.write_text(json.dumps({**first, "format": "metagvae-encoder/1"}))
    assert type(zoo.load_encoder(tmp_path / "a")) is Encoder
