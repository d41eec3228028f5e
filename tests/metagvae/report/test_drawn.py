"""The report's section of drawn images."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.guidance import assign_units
from metagvae.report.drawn import ACROSS, ROWS, drawn_content
from metagvae.zoo.build import VAESection, new_vae
from tests.support.banks import stripes


def material(guidance: list[dict[str, Any]]) -> Any:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, latent=10, units=assign_units(guidance, 10)))
    vae = new_vae(encoder, VAESection(decoder="residual", decoder_width=8, guidance=guidance), {}).eval()
    device = SimpleNamespace(layout=lambda images: images)
    return SimpleNamespace(vae=vae, bank=stripes(5, 8, 28), evaluator=SimpleNamespace(device=device))


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_samples_and_poses_are_shown_and_a_plain_vae_has_samples_alone() -> None:
    run = material([{"name": "deformable_pca", "main_decoder": True}])
    content = drawn_content(run)
    assert len(content["samples"]) == len(content["exchanged"]) == ROWS
    first = pixels(content["samples"][0].source)
    assert first.shape == (56, ACROSS * 60 - 4)
    assert first.std() > 0
    assert not np.array_equal(first, pixels(content["samples"][1].source))
    image, row = content["exchanged"][0]
    assert pixels(image.source).shape == (56, 56)
    assert pixels(row.source).shape == first.shape
    plain = drawn_content(material([]))
    assert plain["exchanged"] == []
    assert len(plain["samples"]) == ROWS
