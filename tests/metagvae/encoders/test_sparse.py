"""The sparse encoder: its codes, its pooling, its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from episodes import InputError
from metagvae import zoo
from metagvae.encoders.patches import Patches
from metagvae.encoders.sparse import SparseConfig, SparseEncoder
from metagvae.encoders.sparse_coding import optimality_gap, sparse_codes
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.zoo.export import export_to


def _encoder(**settings: Any) -> SparseEncoder:
    torch.manual_seed(0)
    encoder = SparseEncoder(SparseConfig(**{"atoms": 24, "penalty": 0.3, "size": 28, **settings})).eval()
    encoder.feature_mean.uniform_(0, 0.1)
    return encoder


def _strokes(count: int) -> torch.Tensor:
    """Pictures with a bar each on black."""
    images = torch.zeros(count, 1, 28, 28)
    for number in range(count):
        images[number, 0, 4 + number % 16 : 7 + number % 16, 3 + number % 7 : 25] = 1
    return images


def test_codes_are_those_of_each_patch() -> None:
    encoder, images = _encoder(steps=400), _strokes(3)
    codes = encoder.codes(images)
    assert codes.shape == (3, 14, 14, 24)
    padded = F.pad(images, (4, 4, 4, 4))
    for place in [(0, 0), (3, 5), (13, 13), (7, 2)]:
        row, column = 2 * place[0], 2 * place[1]
        patch = padded[1, 0, row : row + 9, column : column + 9].reshape(1, -1)
        own = sparse_codes(patch, encoder.dictionary, 0.3)
        assert torch.allclose(codes[1, place[0], place[1]], own[0], atol=1e-5)
    rows = encoder.patches(images.double())
    exact = encoder.double().codes(images.double()).flatten(0, 2)
    assert optimality_gap(rows, encoder.dictionary, exact, 0.3).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_picture_alone_and_in_a_batch(dtype: torch.dtype) -> None:
    encoder, images = _encoder().to(dtype), _strokes(64).to(dtype)
    together = encoder(images)
    assert together.dtype == dtype
    for number in (0, 17, 63):
        alone = encoder(images[number : number + 1])[0]
        assert torch.allclose(alone, together[number], atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(64, dtype=dtype), atol=1e-5)


@pytest.mark.parametrize(("grid", "cell", "corners"), [(3, 6, [0, 4, 8]), (4, 5, [0, 3, 6, 9]), (2, 14, [0, 0])])
def test_cells_overlap_and_reach_both_edges(grid: int, cell: int, corners: list[int]) -> None:
    images = _strokes(3)
    for pool in ("max", "mean"):
        encoder = _encoder(grid=grid, cell=cell, pool=pool, power=1.0)
        codes, pooled = encoder.codes(images), encoder.pooled(images).view(3, 24, grid, grid)
        for i, top in enumerate(corners):
            for j, left in enumerate(corners):
                part = codes[:, top : top + cell, left : left + cell].flatten(1, 2)
                expected = part.amax(1) if pool == "max" else part.mean(1)
                assert torch.allclose(pooled[:, :, i, j], expected, atol=1e-6)


def test_an_empty_picture_has_a_finite_feature() -> None:
    blank = torch.zeros(2, 1, 28, 28)
    for settings in ({}, {"centre": False}, {"pool": "mean", "power": 0.25}, {"unit": False}):
        encoder = _encoder(**settings)
        assert torch.equal(encoder.codes(blank), torch.zeros(2, 14, 14, 24))
        assert encoder(blank).isfinite().all()


def test_autocast_does_not_round_codes() -> None:
    encoder, images = _encoder(), _strokes(2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(images)
    assert torch.equal(rounded, encoder(images))


def test_whole_pictures_have_one_place() -> None:
    encoder, images = _encoder(side=28, grid=1, steps=200), _strokes(2)
    assert encoder.codes(images).shape == (2, 1, 1, 24)
    expected = sparse_codes(images.flatten(1), encoder.dictionary, 0.3)
    assert torch.allclose(encoder.codes(images).flatten(1), expected, atol=1e-3)


def test_a_picture_is_put_together_from_its_codes() -> None:
    images = _strokes(4)
    encoder = SparseEncoder(SparseConfig(side=2, stride=2, pad=0, atoms=4, penalty=1e-6, steps=50, grid=4))
    encoder.set_dictionary(torch.eye(4))
    assert torch.allclose(encoder.rebuilt(images), images, atol=1e-5)


def test_whitened_patches_are_white() -> None:
    torch.manual_seed(0)
    images = F.avg_pool2d(torch.rand(200, 3, 36, 36), 3, 1)  # neighbouring pixels alike
    patches = Patches(3, 34, side=5, whiten=True)
    patches.fit(images, torch.Generator().manual_seed(0), per_image=60)
    plain = Patches(3, 34, side=5).drawn(images, 60, torch.Generator().manual_seed(1)).T.corrcoef()
    white = patches.drawn(images, 60, torch.Generator().manual_seed(1)).T.corrcoef()
    apart = ~torch.eye(75, dtype=torch.bool)
    assert plain[apart].abs().max() > 0.5 > 0.25 > white[apart].abs().max()
    assert white[apart].abs().mean() < 0.5 * plain[apart].abs().mean()


def test_patches_drawn_are_patches_of_the_picture() -> None:
    patches = Patches(2, 12, side=3, stride=1, pad=1)
    images = torch.rand(2, 2, 12, 12)
    drawn = patches.drawn(images, 40, torch.Generator().manual_seed(0)).view(2, 40, -1)
    every = patches(images).view(2, -1, 18)
    for number in range(2):
        apart = (drawn[number][:, None] - every[number]).abs().amax(-1)
        assert torch.equal(apart.amin(1), torch.zeros(40))


def test_saved_opened_exported(tmp_path: Path) -> None:
    encoder, images = _encoder(steps=8), _strokes(5)
    zoo.save_encoder(encoder, tmp_path / "sparse")
    again = zoo.load_encoder(tmp_path / "sparse")
    assert isinstance(again, SparseEncoder)
    assert torch.equal(again(images), encoder(images))
    assert export_to(encoder, tmp_path / "sparse.pt2", "torch-export") < 1e-4
    exported = torch.export.load(tmp_path / "sparse.pt2").module()
    assert torch.allclose(exported(images), encoder(images), atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("side", 0, "encoder.side must be between 2 and 512; received 0"),
        ("side", 40, "encoder.side must be at most the picture's 28"),
        ("side", "9", "encoder.side must be int"),
        ("pad", 10, "encoder.pad must be between 0 and the patch's side 9"),
        ("grid", 20, "encoder.grid must be at most the 14 places"),
        ("cell", 15, "encoder.cell must be between 1 and the 14 places"),
        ("atoms", 10**9, "encoder.atoms must be between 1 and 4096"),
        ("penalty", 0.0, "encoder.penalty must be above 0"),
        ("penalty", float("nan"), "encoder.penalty must be above 0"),
        ("power", -1.0, "encoder.power must be above 0"),
        ("solver", "omp", "unknown solver of sparse codes 'omp'"),
        ("pool", "sum", "encoder.pool must be 'max' or 'mean'"),
        ("polarity", "x" * 1000, "encoder.polarity must be"),
        ("latent", 3, "encoder.latent must be 0"),
        ("features", ["latent"], "features .* alone; received"),
        ("components", 10**6, "encoder.components must be between 1 and the 384 pooled codes"),
        ("balance", 2.0, r"encoder.balance must be in \[0, 1\]"),
        ("steps", 10**9, "encoder.steps must be between 1 and 10000"),
    ],
)
def test_a_strangers_settings_are_one_sentence(tmp_path: Path, setting: str, value: Any, says: str) -> None:
    zoo.save_encoder(_encoder(), tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    content = json.loads(path.read_text())
    content["encoder"][setting] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=says) as raised:
        zoo.load_encoder(tmp_path / "a")
    assert len(str(raised.value)) < 600


def test_a_strangers_atoms_have_length_one(tmp_path: Path) -> None:
    zoo.save_encoder(_encoder(), tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors"
    tensors = read_tensors(path)
    write_tensors(path, {**tensors, "dictionary": tensors["dictionary"] * 1e18})
    with pytest.raises(InputError, match="atoms of a sparse encoder have length 1; received one of length"):
        zoo.load_encoder(tmp_path / "a")
    write_tensors(path, {**tensors, "dictionary": tensors["dictionary"][:3]})
    with pytest.raises(InputError, match=r"dictionary \[3, 81\] instead of \[24, 81\]"):
        zoo.load_encoder(tmp_path / "a")


def test_other_pictures_are_one_sentence() -> None:
    with pytest.raises(InputError, match=r"takes pictures \[B, 1, 28, 28\]"):
        _encoder()(torch.rand(2, 1, 32, 32))
    with pytest.raises(InputError, match="has no posterior"):
        _encoder().posterior(torch.rand(1, 1, 28, 28))


def test_components_are_the_principal_directions() -> None:
    images = _strokes(112) + 0.3 * torch.rand(112, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    encoder = _encoder(components=12, balance=0.0, unit=False, grid=2, atoms=16)
    encoder.fit_features(images, torch.Generator().manual_seed(0))
    features = encoder(images).double()
    oracle = PCA(12, svd_solver="full").fit(encoder.pooled(images).double().numpy())
    assert np.allclose(features.var(0).numpy(), oracle.explained_variance_, rtol=1e-3)
    assert (features.T.corrcoef() - torch.eye(12)).abs().max() < 1e-3
    even = _encoder(components=12, balance=1.0, unit=False, grid=2, atoms=16)
    even.fit_features(images, torch.Generator().manual_seed(0))
    assert torch.allclose(even(images).var(0), features.var(0)[0].float().expand(12), rtol=1e-3)
    with pytest.raises(InputError, match="12 components need more training images than that; received 5"):
        even.fit_features(images[:5], torch.Generator())
