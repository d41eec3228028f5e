"""Texts through the whole of a VAE: encoder, LSTM decoder, free bits, short run, and few-shot error by the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize
from torch.distributions import Categorical

import metagvae
from episodes import InputError, to_float
from episodes.datasets import make_dataset
from episodes.tokens import TokenBank
from metagvae import zoo
from metagvae.cli import main
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import EncoderSection, PretrainConfig, VAESection
from metagvae.encoders.controls import make_control
from metagvae.encoders.text import TextEncoder
from metagvae.storage.tensors import read_tensors
from metagvae.training.pretraining import pretrain
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.text_decoder import TEXT_DECODERS, TextDecoder, TrigramDecoder
from metagvae.zoo.build import new_encoder, new_vae
from tests.support.banks import stripes

TEXT = {"likelihood": "categorical", "decoder": "lstm", "decoder_width": 12}


@pytest.fixture(scope="module")
def texts() -> TokenBank:
    bank = make_dataset("udhr", cut=True, size=16).load("test")
    assert isinstance(bank, TokenBank)
    return bank


def vae_of(bank: TokenBank, **options: Any) -> GuidedVAE:
    section = VAESection(**{**TEXT, **options})
    encoder = new_encoder(EncoderSection(backbone="text", width=8, latent=5), section, bank, 0)
    return new_vae(encoder, section, {}).eval()


@pytest.mark.parametrize(("kind", "reach"), [(TextDecoder, 6), (TrigramDecoder, 2)])
def test_the_decoder_sees_what_came_before_and_nothing_after(
    texts: TokenBank, kind: type[TextDecoder | TrigramDecoder], reach: int
) -> None:
    torch.manual_seed(0)
    decoder = kind(5, len(texts.symbols), 16, 12)
    z, images = torch.randn(3, 5), to_float(texts.images[:3])
    changed = images.clone()
    changed[..., 9] = 1 / 255
    first, second = decoder(z, images), decoder(z, changed)
    seen = slice(10, 10 + reach)  # by an LSTM to the end, by trigrams as far as two characters
    assert torch.equal(first[..., :10], second[..., :10])
    assert torch.equal(first[..., seen.stop :], second[..., seen.stop :])
    assert bool((first[..., seen] != second[..., seen]).flatten(0, 2).any(0).all())
    assert not torch.allclose(first, decoder(z + 1, images))
    first.square().sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in decoder.parameters())


@pytest.mark.parametrize("decoder", list(TEXT_DECODERS))
def test_the_likelihood_is_that_of_the_characters(texts: TokenBank, decoder: str) -> None:
    vae, images = vae_of(texts, decoder=decoder), to_float(texts.images[:4])
    z = torch.randn(4, 5)
    with torch.no_grad():
        logits = vae.decoder(z, images).squeeze(2).transpose(1, 2)
        expected = Categorical(logits=logits).log_prob(texts.images[:4].flatten(1).long()).sum(1)
        assert torch.allclose(vae.log_likelihood(images, z), expected, atol=1e-4)
    # what is written greedily is what the teacher-forced decoder finds likeliest, character by character
    written = vae.decode(z)
    assert written.shape == (4, 1, 1, 16)
    with torch.no_grad():
        again = vae.decoder(z, written).argmax(1).flatten(1)
    assert torch.equal(again, (written * 255).round().long().flatten(1))
    drawn = vae.decoder.write(z, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert not torch.equal(drawn, written)


def test_free_bits_leave_the_first_nats_of_a_unit_alone(texts: TokenBank) -> None:
    images = to_float(texts.images[:8])
    plain, free = vae_of(texts), vae_of(texts, free_bits=0.5)
    per_unit = plain.kl_of_units(plain.infer(images))
    assert per_unit is not None
    assert float(free.losses(images)["kl"]) == pytest.approx(float(per_unit.clamp(min=0.5).sum()), rel=1e-5)
    assert float(plain.losses(images)["kl"]) == pytest.approx(float(per_unit.sum()), rel=1e-5)
    with pytest.raises(InputError, match=r"vae\.free_bits must be at least 0"):
        vae_of(texts, free_bits=-1.0)


def test_n_grams_are_scikit_learns(texts: TokenBank) -> None:
    rows = texts.images[:30]
    found = make_control("ngrams", texts)(to_float(rows)).numpy()
    counter = CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False)
    expected = normalize(counter.fit_transform(["".join(texts.text(row)) for row in rows]))
    # a few of the hashed counts share a place
    assert abs(euclidean_distances(found) - euclidean_distances(expected.toarray())).max() < 0.05


def config(folder: Path, **options: Any) -> PretrainConfig:
    return PretrainConfig(
        encoder=EncoderSection(backbone="text", width=8, latent=5),
        vae=VAESection(**{**TEXT, **options}),
        batch=16,
        optim=OptimSection(steps=3, precision="float32"),
        run=RunSection(folder=str(folder), device="cpu"),
    )


def test_a_run_is_trained_ranked_and_measured_by_the_commands(tmp_path: Path, texts: TokenBank) -> None:
    words = [
        "pretrain",
        "--data.name",
        "udhr",
        "--data.options",
        '{"cut": true}',
        "--data.size",
        "16",
        "--encoder.backbone",
        "text",
    ]
    words += [
        "--encoder.width",
        "8",
        "--encoder.latent",
        "5",
        "--vae.likelihood",
        "categorical",
        "--vae.decoder",
        "lstm",
    ]
    words += ["--vae.decoder_width", "12", "--vae.inference", '{"name": "short_run", "start": "prior", "steps": 2}']
    words += ["--optim.steps", "3", "--run.folder", str(tmp_path / "run"), "--run.device", "cpu"]
    assert main(words) == 0
    assert isinstance(metagvae.load_encoder(tmp_path / "run"), TextEncoder)
    lines = (tmp_path / "run" / "figures" / "texts.txt").read_text()
    assert "drawn from the prior" in lines
    vae = zoo.open(tmp_path / "run").vae()
    alone, together = (vae.infer(to_float(texts.images[:n])).mean for n in (1, 40))
    assert torch.allclose(alone[0], together[0], atol=1e-5)
    file = tmp_path / "few.json"
    words = [
        "evaluate",
        "--run",
        str(tmp_path / "run"),
        "--encoder",
        "ngrams",
        "--way",
        "5",
        "--shot",
        "1",
        "--episodes",
    ]
    assert main([*words, "20", "--device", "cpu", "--json", str(file)]) == 0
    errors = {r["method"]: r["error"] for r in json.loads(file.read_text())["results"]}
    assert errors["ngrams"] < errors["run"]  # three steps teach nothing
    assert main(["report", str(tmp_path / "run"), "--episodes", "10"]) == 2
    file = tmp_path / "likelihood.json"
    words = ["likelihood", str(tmp_path / "run"), "--images", "3", "--samples", "20", "--chains", "4", "--steps", "2"]
    assert main([*words, "--annealed", "0", "--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    (row,), (cells,) = found["runs"], found["rows"]
    assert found["about"].startswith("3 texts of ")
    assert "image" not in found["about"]
    assert cells["bits per character"] == f"{row['bits']:.4f}"
    assert row["bits"] == pytest.approx(-row["log_likelihood"] / 16 / math.log(2))  # bits per character
    assert 5 < row["bits"] < 9


@pytest.mark.parametrize(
    "options",
    [
        {"free_bits": 0.1},
        {"decoder": "trigram", "inference": {"name": "short_run", "start": "prior", "steps": 2, "temperature": 0.1}},
    ],
    ids=["free-bits", "short-run"],
)
def test_a_resumed_text_run_ends_bit_identical(tmp_path: Path, texts: TokenBank, options: dict[str, Any]) -> None:
    from metagvae.runs.signals import Interrupted

    pretrain(config(tmp_path / "whole", **options), texts)
    stopped = config(tmp_path / "halves", **options)
    stopped.run.stop_after = 2
    with pytest.raises(Interrupted):
        pretrain(stopped, texts)
    resumed = config(tmp_path / "halves", **options)
    resumed.run.resume = True
    pretrain(resumed, texts)
    whole, halves = (read_tensors(tmp_path / name / "vae.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_texts_and_images_are_told_apart(tmp_path: Path, texts: TokenBank) -> None:
    with pytest.raises(InputError, match=r"encoder\.backbone 'text' is for texts.*images of stripes|custom"):
        pretrain(config(tmp_path / "a"), stripes(3, 2, 28))
    images = config(tmp_path / "b")
    images.encoder.backbone, images.vae = "conv4", VAESection()
    with pytest.raises(InputError, match="received 'conv4' and the texts of udhr-cut"):
        pretrain(images, texts)
    with pytest.raises(InputError, match=r"vae\.decoder: unknown text decoder 'upsampling'; known: lstm, trigram"):
        pretrain(config(tmp_path / "c", decoder="upsampling"), texts)
    with pytest.raises(InputError, match=r"vae\.likelihood 'categorical' is of texts"):
        pretrain(config(tmp_path / "d", likelihood="bernoulli"), texts)
    encoder = new_encoder(EncoderSection(backbone="text", width=8, latent=5), VAESection(**TEXT), texts, 0)
    with pytest.raises(InputError, match=r"texts \[B, 1, 1, 16\]"):
        encoder(torch.rand(2, 1, 28, 28))
