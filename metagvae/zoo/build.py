"""Modules from configs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from episodes import ImageBank, InputError
from episodes.counter_rng import seed_for
from episodes.registry import Registry
from episodes.tokens import TEXT
from metagvae.config.sections import EncoderSection, VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.text import TextConfig, TextEncoder
from metagvae.guidance import GuidanceContext, assign_units, make_guidances
from metagvae.storage.strict_load import build
from metagvae.vae.decoders import DECODERS
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.inference import INFERENCES
from metagvae.vae.priors import PRIORS
from metagvae.vae.text_decoder import TEXT_DECODERS

MAX_WIDTH = 1024  # as of an encoder; sizes of larger networks overflow before they can be counted


def attribute_sizes(bank: ImageBank) -> dict[str, int]:
    """How many values each attribute of a bank's classes and images has, the class itself among them."""
    known = {**bank.attributes, **bank.image_attributes}
    return {"class": bank.num_classes, **{name: len(a.names) for name, a in known.items()}}


def factor_ranges(bank: ImageBank) -> dict[str, tuple[float, float]]:
    """The smallest and the largest known number of each factor of a bank; 0 and 0 where none is known."""
    if bank.factors is None:
        return {}
    ranges = {}
    for name, column in zip(bank.factors.names, bank.factors.values.cpu().unbind(-1), strict=True):
        known = column[~column.isnan()].double()
        ranges[name] = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return ranges


def listed(factors: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The part of a run's config that tells the factors' ranges; none of images without factors."""
    return {"factors": {name: list(pair) for name, pair in factors.items()}} if factors else {}


def _encoder_config(section: EncoderSection, vae: VAESection, **pictures: Any) -> EncoderConfig:
    prior, of_prior = PRIORS.chosen(vae.prior, "vae.prior: ")
    kind = TextConfig if section.backbone == TextConfig.backbone else EncoderConfig
    return kind(
        backbone=section.backbone,
        width=section.width,
        mean=section.mean,
        std=section.std,
        latent=section.latent,
        norm=section.norm,
        units=assign_units(vae.guidance, section.latent, prior.owned_units(**of_prior)),
        features=list(section.features or ["latent"]),
        **pictures,
    )


def check_sections(encoder: EncoderSection, vae: VAESection) -> None:
    """Raises `InputError` for what is wrong with the sections of a new encoder, before any picture is decoded."""
    _encoder_config(encoder, vae).check()
    _decoders(encoder.backbone).find(vae.decoder, "vae.decoder: ")
    INFERENCES.chosen(vae.inference, "vae.inference: ")


def _decoders(backbone: str) -> Registry[Callable[..., Any]]:
    """The decoders of what an encoder of such a backbone takes, texts or images."""
    return TEXT_DECODERS if backbone == TextConfig.backbone else DECODERS


def new_encoder(section: EncoderSection, vae: VAESection, bank: ImageBank, seed: int) -> Encoder:
    """An untrained encoder for a bank's pictures; its weights are a pure function of ``seed``."""
    torch.manual_seed(seed_for(seed, 0))
    channels, size, _ = bank.image_shape
    config = _encoder_config(section, vae, channels=channels, size=size, polarity=bank.polarity)
    if isinstance(config, TextConfig) != (bank.polarity == TEXT):
        raise InputError(
            f"encoder.backbone 'text' is for texts, and the others for images; received {section.backbone!r} and the "
            f"{'texts' if bank.polarity == TEXT else 'images'} of {bank.dataset}."
        )
    if isinstance(config, TextConfig):
        return build(lambda: TextEncoder(config), "the section 'encoder'")
    return build(lambda: Encoder(config), "the section 'encoder'")


def check_source_settings(section: EncoderSection, encoder: Encoder) -> None:
    """Raises `InputError` for settings of a new encoder that differ from the trained one: they would be passed over."""
    usual = EncoderSection()
    for name in ("backbone", "width", "latent", "norm", "mean", "std"):
        asked, has = getattr(section, name), getattr(encoder.config, name)
        if section.source is not None and asked not in (getattr(usual, name), has):
            raise InputError(
                f"encoder.{name} is {asked!r}, and the trained encoder {section.source} has {has!r} and keeps it. "
                f"Leave encoder.{name} out, or set encoder.source to null for a new encoder."
            )


def new_vae(
    encoder: Encoder,
    vae: VAESection,
    sizes: dict[str, int],
    tensors: Mapping[str, Tensor] | None = None,
    where: str = "the section 'vae'",
    factors: Mapping[str, tuple[float, float]] | None = None,
) -> GuidedVAE:
    """A VAE around an encoder whose units fit the section's guidance.

    Args:
        sizes: values of each known attribute, from `attribute_sizes`.
        tensors: weights that it is to fit, of the file ``where``; they are not loaded here.
        factors: from `factor_ranges`.
    """
    config = encoder.config
    make_decoder = _decoders(config.backbone).find(vae.decoder, "vae.decoder: ")
    prior, of_prior = PRIORS.chosen(vae.prior, "vae.prior: ")
    inference, of_inference = INFERENCES.chosen(vae.inference, "vae.inference: ")
    if not 1 <= vae.decoder_width <= MAX_WIDTH:
        raise InputError(f"vae.decoder_width must be between 1 and {MAX_WIDTH}; received {vae.decoder_width}.")

    def make() -> GuidedVAE:
        context = GuidanceContext(config.channels, config.size, config.units, sizes, dict(factors or {}))
        decoder = make_decoder(config.latent, config.channels, config.size, vae.decoder_width)
        guidances = make_guidances(vae.guidance, context)
        return GuidedVAE(
            encoder,
            decoder,
            guidances,
            vae.beta,
            vae.likelihood,
            vae.sigma,
            prior(context, **of_prior),
            inference(context, **of_inference),
            vae.free_bits,
        )

    return build(make, where, tensors)


def check_guided_attributes(vae: GuidedVAE, run: object, before: dict[str, int], now: dict[str, int]) -> None:
    """Raises `InputError` if a guidance of ``run`` was taught other labels than ``now``; see `attribute_sizes`."""
    for guidance in vae.guidances:
        for name in guidance.taught():
            if before.get(name) != now.get(name):
                raise InputError(
                    f"the run {run} guides the attribute {name!r} of {before.get(name)} values; these pictures have "
                    f"{now.get(name)}. Use the data options that the run was pretrained with, or mode 'finetune'."
                )


def check_pictures(encoder: Encoder, bank: ImageBank, source: object) -> None:
    """Raises `InputError` if the bank's pictures do not fit an encoder, naming what to change."""
    channels, size, _ = bank.image_shape
    config = encoder.config
    if encoder.takes_any_size:
        return
    if (channels, size) != (config.channels, config.size):
        raise InputError(
            f"the encoder {source} takes pictures of {config.channels} channel(s), {config.size} x {config.size}; "
            f"{bank.dataset} gives {channels} channel(s), {size} x {size}. {_advice(config, bank)}"
        )
    if config.polarity != bank.polarity:
        raise InputError(
            f"the encoder {source} was trained on pictures of polarity '{config.polarity}', and {bank.dataset} "
            f"gives '{bank.polarity}' ('ink' is bright strokes on black). {_advice(config, bank)}"
        )


def _advice(config: EncoderConfig, bank: ImageBank) -> str:
    """The settings that bring a bank's pictures to what an encoder takes, in a config and on a line."""
    if not bank.dataset.startswith("folder"):
        kind = f"a data set of {config.channels} channel(s) and polarity '{config.polarity}'"
        fits = (bank.image_shape[0], bank.polarity) == (config.channels, config.polarity)
        return (
            f"Set data.size (--size) to {config.size}."
            if fits
            else f"Take {kind}, at data.size (--size) {config.size}."
        )
    options: dict[str, Any] = {"channels": config.channels}
    if config.polarity != bank.polarity:
        options["invert"] = config.polarity == "ink"  # of bright strokes on black as they are: ink
    said = json.dumps(options)
    return (
        f"Set data.size to {config.size} and data.options to {said}; for a command without a config: "
        f"--size {config.size} --data_options '{said}'."
    )
