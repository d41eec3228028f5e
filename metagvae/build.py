"""Modules from configs, and back from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from episodes import ImageBank, InputError
from episodes.rng import seed_for
from metagvae.checkpoints import load_encoder, load_strictly, read_tensors
from metagvae.config import DataConfig, EncoderSection, LearnerSection, VAESection
from metagvae.decoders import DECODERS
from metagvae.encoder import Encoder, EncoderConfig
from metagvae.guidance import GuidanceContext, assign_units, make_guidances
from metagvae.learners import Learner, make_learner
from metagvae.runs import read_config
from metagvae.vae import GuidedVAE


def attribute_sizes(bank: ImageBank) -> dict[str, int]:
    """How many values each attribute of a bank's classes has, the class itself among them."""
    return {"class": bank.num_classes, **{name: len(a.names) for name, a in bank.attributes.items()}}


def new_encoder(section: EncoderSection, vae: VAESection, bank: ImageBank, seed: int) -> Encoder:
    """An untrained encoder for a bank's pictures; its weights are a pure function of ``seed``."""
    torch.manual_seed(seed_for(seed, 0))
    channels, size, _ = bank.image_shape
    return Encoder(
        EncoderConfig(
            backbone=section.backbone,
            width=section.width,
            channels=channels,
            size=size,
            polarity=bank.polarity,
            mean=section.mean,
            std=section.std,
            latent=section.latent,
            norm=section.norm,
            units=assign_units(vae.guidance, section.latent),
            features=list(section.features or ["latent"]),
        )
    )


def new_vae(encoder: Encoder, vae: VAESection, sizes: dict[str, int]) -> GuidedVAE:
    """A VAE around an encoder whose units fit the section's guidance.

    Args:
        sizes: values of each known attribute, from `attribute_sizes`.
    """
    config = encoder.config
    context = GuidanceContext(config.channels, config.size, config.units, sizes)
    if vae.decoder not in DECODERS:
        raise InputError(f"unknown vae.decoder {vae.decoder!r}; allowed: {', '.join(DECODERS)}.")
    decoder = DECODERS[vae.decoder](config.latent, config.channels, config.size, vae.decoder_width)
    guidances = make_guidances(vae.guidance, context)
    return GuidedVAE(encoder, decoder, guidances, vae.beta, vae.likelihood, vae.sigma)


def load_vae(folder: str | Path) -> GuidedVAE:
    """The whole VAE of a finished pretraining run, or of a training run of mode guided.

    Raises:
        InputError: if the folder is no such run, or its files are damaged.
    """
    folder = Path(folder).expanduser()
    config = read_config(folder)
    if not (folder / "vae.safetensors").is_file():
        raise InputError(
            f"{folder} is not the folder of a finished `metagvae pretrain`, nor of a `metagvae train` of mode guided; "
            "it has no vae.safetensors."
        )
    encoder = load_encoder(folder)
    vae = new_vae(encoder, VAESection(**config["vae"]), config["attributes"])
    load_strictly(vae, read_tensors(folder / "vae.safetensors"), str(folder / "vae.safetensors"))
    return vae.eval()


def check_guided_attributes(vae: GuidedVAE, folder: str | Path, now: dict[str, int]) -> None:
    """Raises `InputError` if a pretrained guidance was taught other labels than ``now``, from `attribute_sizes`."""
    before = read_config(folder)["attributes"]
    for guidance in vae.guidances:
        for name in getattr(guidance, "units", {}):
            if before.get(name) != now.get(name):
                raise InputError(
                    f"the run {folder} guides the attribute {name!r} of {before.get(name)} values; these pictures have "
                    f"{now.get(name)}. Use the data options that the run was pretrained with, or mode 'finetune'."
                )


def load_learner(folder: str | Path) -> tuple[Learner, dict[str, Any]]:
    """The best learner of a finished training run, in evaluation mode, and the run's config."""
    folder = Path(folder).expanduser()
    config = read_config(folder)
    if config["kind"] != "train" or not (folder / "learner.safetensors").is_file():
        raise InputError(f"{folder} is not the folder of a finished `metagvae train`; it has no learner.safetensors.")
    encoder = load_encoder(folder)
    section = LearnerSection(**config["learner"])
    learner = make_learner(section.name, encoder, config["episodes"]["way"], **section.options)
    load_strictly(learner, read_tensors(folder / "learner.safetensors"), str(folder / "learner.safetensors"))
    return learner.eval(), config


def data_config(config: dict[str, Any]) -> DataConfig:
    """The data section of a run's config."""
    return DataConfig(**config["data"])


def check_pictures(encoder: Encoder, bank: ImageBank, source: str) -> None:
    """Raises `InputError` if the bank's pictures do not fit an encoder, naming what to change."""
    channels, size, _ = bank.image_shape
    config = encoder.config
    if ":" in config.backbone:
        return  # another package's network brings pictures of any size to its own
    if (channels, size) != (config.channels, config.size):
        raise InputError(
            f"the encoder {source} takes pictures of {config.channels} channel(s), {config.size} x {config.size}; "
            f"{bank.dataset} gives {channels} channel(s), {size} x {size}. Set --data.size {config.size}"
            + ("." if channels == config.channels else f", and a data set of {config.channels} channel(s).")
        )
    if config.polarity != bank.polarity:
        raise InputError(
            f"the encoder {source} was trained on pictures of polarity '{config.polarity}', and {bank.dataset} "
            f"gives '{bank.polarity}' ('ink' is bright strokes on black). Invert the pictures first."
        )
