from __future__ import annotations

import pytest
import torch
from torch import nn

from episodes import InputError
from metagvae.encoders.backbones import BACKBONES
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.norm import POLICIES, Norm2d, task_rows


def test_running_is_torchs_batch_norm() -> None:
    ours, theirs = Norm2d(6), nn.BatchNorm2d(6)
    for _ in range(3):
        x = torch.randn(5, 6, 4, 4) * 2 + 1
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(ours.get_buffer("running_var"), theirs.running_var)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-6)


def test_support_statistics_come_from_leading_rows_of_each_task() -> None:
    norm = Norm2d(3, "support")
    x = torch.randn(2 * 7, 3, 4, 4)
    with task_rows(norm, 2, 3):
        out = norm(x).view(2, 7, 3, 4, 4)
    for task in range(2):
        lead = x.view(2, 7, 3, 4, 4)[task, :3]
        mean, var = lead.mean((0, 2, 3), keepdim=True), lead.var((0, 2, 3), correction=0, keepdim=True)
        assert torch.allclose(out[task], (x.view(2, 7, 3, 4, 4)[task] - mean) / (var + 1e-5).sqrt(), atol=1e-5)
    assert norm.rows == (1, None)


def test_transductive_uses_all_rows() -> None:
    norm = Norm2d(3, "transductive")
    x = torch.randn(7, 3, 4, 4)
    with task_rows(norm, 1, 3):
        assert torch.allclose(norm(x), nn.BatchNorm2d(3)(x), atol=1e-5)


def test_group_is_torchs_group_norm() -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.allclose(Norm2d(16, "group")(x), nn.GroupNorm(8, 16)(x), atol=1e-6)


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(InputError, match="allowed: running"):
        Norm2d(3, "batch")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [28, 84])
def test_backbones_give_the_size_they_announce(backbone: str, size: int, policy: str) -> None:
    encoder = Encoder(EncoderConfig(backbone, 8, 3, size, latent=5, norm=policy))
    encoder.features = ["backbone", "latent"]
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, encoder.feature_size)
    assert encoder.feature_size == encoder.backbone_size + 5


def test_conv4_has_the_published_sizes() -> None:
    assert Encoder(EncoderConfig(size=28)).backbone_size == 64
    assert Encoder(EncoderConfig(size=84, channels=3)).backbone_size == 1600


def test_conv4_places_moves_its_map_as_the_image_moves() -> None:
    backbone = BACKBONES["conv4_places"](1, 4).eval()
    dot = torch.zeros(1, 1, 28, 28)
    dot[..., 12:14, 12:14] = 1.0
    here, there = backbone(dot), backbone(dot.roll((4, -4), (2, 3)))  # a step of the map is four pixels
    assert here.shape == (1, 4, 7, 7)
    assert torch.allclose(there[..., 1:, :-1], here[..., :-1, 1:], atol=1e-6)
    assert not torch.allclose(there, here, atol=1e-3)


def test_features_by_group() -> None:
    encoder = Encoder(EncoderConfig(width=8, latent=6, units={"geometry": [0, 1], "content": [2, 3, 4, 5]})).eval()
    x = torch.rand(3, 1, 28, 28)
    mean = encoder.posterior(x).mean
    assert torch.allclose(encoder(x), mean)
    encoder.features = ["content"]
    assert torch.allclose(encoder(x), mean[:, 2:])
    encoder.features = ["geometry", "backbone"]
    assert torch.allclose(encoder(x), torch.cat((mean[:, :2], encoder.maps(x)), 1))
    with pytest.raises(InputError, match="allowed: latent, backbone, geometry, content"):
        encoder.features = ["class"]


def test_wrong_pictures_and_units_are_refused() -> None:
    encoder = Encoder(EncoderConfig(width=8))
    with pytest.raises(InputError, match=r"received \[2, 3, 28, 28\]"):
        encoder(torch.rand(2, 3, 28, 28))
    with pytest.raises(InputError, match="units"):
        Encoder(EncoderConfig(latent=4, units={"content": [0, 1, 1, 3]}))


def test_normalisation_is_inside() -> None:
    config = EncoderConfig(width=8)
    plain = Encoder(config).eval()
    shifted = Encoder(EncoderConfig(width=8, mean=0.5, std=0.25)).eval()
    shifted.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 28, 28)
    assert torch.allclose(shifted(x), plain((x - 0.5) / 0.25), atol=1e-6)
