"""Digits: shape, labels against scikit-learn's, legibility, errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from episodes.datasets import make_dataset
from episodes.errors import InputError
from metagvae.classifier.inputs import collect


def test_pictures_are_what_the_classifier_makes_of_scikit_learns() -> None:
    bank = make_dataset("digits").load("test")
    source = load_digits()
    order = torch.from_numpy(source.target).argsort(stable=True)
    pictures = collect(source.images[order], 1, 28)
    brought = pictures.on(pictures.scale(None, None))
    assert torch.allclose(brought, bank.images.float() / 255, atol=0.5 / 255 + 1e-6)
    assert bank.dataset == "digits"


def test_pictures_and_labels_are_scikit_learns() -> None:
    bank = make_dataset("digits", redrawn=True).load("test")
    source = load_digits()
    assert bank.dataset == "digits-redrawn"
    assert bank.images.shape == (1797, 1, 28, 28)
    assert bank.polarity == "ink"
    assert bank.class_names == tuple("0123456789")
    order = torch.from_numpy(source.target).argsort(stable=True)
    assert torch.equal(bank.labels, torch.from_numpy(source.target)[order])
    # each picture is its source enlarged: at 8 x 8 again it is like its own, more than like the next one
    own = torch.from_numpy(source.images).float()[order].flatten(1)
    small = F.interpolate(bank.images[:, :, 4:24, 4:24].float(), (8, 8), mode="area").flatten(1)
    own, small = (F.normalize(x - x.mean(1, keepdim=True)) for x in (own, small))
    likeness = (small * own).sum(1)
    assert likeness.min() > 0.7
    assert likeness.mean() > 0.85
    assert (likeness > (small * own.roll(1, 0)).sum(1)).float().mean() > 0.9  # some are twins


def test_redrawn_strokes_are_ink_inside_a_margin() -> None:
    images = make_dataset("digits", redrawn=True).load("test").images[:, 0].float()
    assert images.amax((1, 2)).min() > 200
    assert 15 < images.mean() < 40  # Omniglot's is about 20
    border = torch.ones(28, 28, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert images[:, border].max() == 0


@pytest.mark.parametrize("redrawn", [False, True])
@pytest.mark.parametrize("size", [8, 15, 64])
def test_any_size(size: int, redrawn: bool) -> None:
    bank = make_dataset("digits", size=size, redrawn=redrawn).load("test")
    assert bank.image_shape == (1, size, size)
    assert bank.images.flatten(1).amax(1).min() > 0


@pytest.mark.parametrize("split", ["train", "validation"])
def test_only_the_test_split_exists(split: str) -> None:
    with pytest.raises(InputError, match="test-only"):
        make_dataset("digits").load(split)
