"""SparseEncoder: sparse codes of patches under a learnt dictionary, pooled over a grid; no labels, no gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import InputError
from episodes.precision import autocast_off
from episodes.untrusted.typed import check_types
from metagvae.config.dictionary import SparseSettings
from metagvae.encoders.encoder import ENCODERS, Encoder, EncoderConfig, Posterior
from metagvae.encoders.patches import Patches
from metagvae.encoders.sparse_coding import SOLVERS, LassoProblem, gram_and_rate

MAX_FEATURES = 65_536
NUMBERS = 2**17  # of one tensor of codes at a time: it stays in a processor's cache
GPU_TIMES = 64  # as many times as much on a GPU, where a launch costs as much as its work
LENGTH_TOLERANCE = 1e-3  # of an atom read from a file


@dataclass
class SparseConfig(SparseSettings, EncoderConfig):
    """Settings of a `SparseEncoder`, those of its codes in `metagvae.config.dictionary.SparseSettings`.

    It has no latent, so no ``units``; its one kind of features is ``codes``.

    Example:
        >>> from metagvae.encoders.sparse import SparseConfig
        >>> SparseConfig(side=9, atoms=64, grid=4).check()
    """

    backbone: str = "sparse"
    latent: int = 0
    norm: str = "none"
    features: list[str] = field(default_factory=lambda: ["codes"])

    @property
    def length(self) -> int:
        """Of a picture's feature."""
        return self.components or self.atoms * self.grid**2

    @property
    def border(self) -> int:
        """Empty pixels around the picture."""
        return self.pad if self.pad is not None else (0 if self.side >= self.size else self.side // 2)

    def check(self) -> None:
        """Raises `InputError` if a value is not allowed."""
        check_types(type(self), vars(self), "encoder.")
        for name, low, high in (
            ("channels", 1, 16),
            ("size", 8, 512),
            ("side", 2, 512),
            ("stride", 1, 64),
            ("atoms", 1, 4096),
            ("steps", 1, 10_000),
            ("grid", 1, 64),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"encoder.{name} must be between {low} and {high}; received {value}.")
        if not 0 <= self.border <= self.side:
            raise InputError(f"encoder.pad must be between 0 and the patch's side {self.side}; received {self.pad}.")
        if self.side > self.size + 2 * self.border:
            raise InputError(
                f"encoder.side must be at most the picture's {self.size} pixels with their border; received "
                f"{self.side}."
            )
        places = (self.size + 2 * self.border - self.side) // self.stride + 1
        if self.grid > places:
            raise InputError(
                f"encoder.grid must be at most the {places} places of a patch in each direction; received {self.grid}."
            )
        if self.cell is not None and not 1 <= self.cell <= places:
            raise InputError(
                f"encoder.cell must be between 1 and the {places} places of a patch in each direction; received "
                f"{self.cell}."
            )
        if self.atoms * self.grid**2 > MAX_FEATURES:
            raise InputError(
                f"encoder.atoms times the cells of encoder.grid must be at most {MAX_FEATURES:,}; received "
                f"{self.atoms} and {self.grid} x {self.grid}."
            )
        most = self.atoms * self.grid**2
        if self.components is not None and not (self.centre and 1 <= self.components <= most):
            raise InputError(
                f"encoder.components must be between 1 and the {most} pooled codes, with encoder.centre true; received "
                f"{self.components} and {str(self.centre).lower()}."
            )
        if not 0 <= self.balance <= 1:
            raise InputError(f"encoder.balance must be in [0, 1]; received {self.balance}.")
        for name, value, largest in (("penalty", self.penalty, 1e6), ("power", self.power, 4.0)):
            if not (math.isfinite(value) and 0 < value <= largest):
                raise InputError(f"encoder.{name} must be above 0 and at most {largest:g}; received {value}.")
        SOLVERS.find(self.solver, "encoder.solver: ")
        for name, chosen, allowed in (
            ("pool", self.pool, ("max", "mean")),
            ("polarity", self.polarity, ("ink", "light")),
        ):
            if chosen not in allowed:
                raise InputError(
                    f"encoder.{name} must be {' or '.join(map(repr, allowed))}; received {chosen[:100]!r}."
                )
        if self.latent or self.units:
            raise InputError("a sparse encoder has no latent: encoder.latent must be 0 and encoder.units empty.")
        self.check_features(self.features)

    def check_features(self, names: list[str]) -> None:
        """Raises `InputError` unless ``names`` are ``["codes"]``."""
        if list(names) != ["codes"]:
            raise InputError(f"a sparse encoder has the features ['codes'] alone; received {str(names)[:200]}.")


@ENCODERS.register
class SparseEncoder(Encoder):
    """Pooled sparse codes of a picture's patches.

    Each patch x is coded by argmin over a of 1/2 |x - a D|^2 + penalty * |a|_1; atoms compete to explain it. The codes
    of an atom are pooled over each cell of a grid, raised to a power, centred by the training pictures' mean, turned to
    their principal directions where asked, and the whole is brought to length 1. The dictionary is learnt by
    `metagvae.training.dictionaries.learn_dictionary`; a new encoder's atoms are random. As in Yang, Yu, Gong & Huang
    (CVPR 2009), without their labels and their pyramid.

    Example:
        >>> import torch
        >>> from metagvae.encoders.sparse import SparseConfig, SparseEncoder
        >>> encoder = SparseEncoder(SparseConfig(atoms=16))
        >>> encoder(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 256])
    """

    name: ClassVar[str] = "sparse"
    settings: ClassVar[type[EncoderConfig]] = SparseConfig
    has_posterior: ClassVar[bool] = False
    trainable: ClassVar[bool] = False

    dictionary: Tensor
    feature_mean: Tensor
    projection: Tensor
    gram: Tensor
    rate: Tensor

    def __init__(self, config: SparseConfig) -> None:
        nn.Module.__init__(self)
        config.check()
        self.config: SparseConfig = replace(config, features=list(config.features))
        self.patches = Patches(config.channels, config.size, config.side, config.stride, config.border, config.whiten)
        self.backbone_size: int = config.length
        pooled = config.atoms * config.grid**2
        atoms = F.normalize(torch.randn(config.atoms, self.patches.length), dim=1)
        self.register_buffer("dictionary", atoms)
        self.register_buffer("feature_mean", torch.zeros(pooled))
        if config.components is not None:
            self.register_buffer("projection", torch.eye(pooled, config.components))
        # both follow from the dictionary; exported programs have no eigenvalues
        self.register_buffer("gram", torch.eye(config.atoms), persistent=False)
        self.register_buffer("rate", torch.ones(()), persistent=False)
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]
        if not atoms.is_meta:
            self.set_dictionary(atoms)

    @property
    def feature_size(self) -> int:
        """Length of what a call returns per picture."""
        return self.backbone_size

    @torch.no_grad()
    def set_dictionary(self, atoms: Tensor) -> None:
        """Takes atoms ``[atoms, length of a patch]``.

        Raises:
            InputError: if one is not of length 1.
        """
        lengths = atoms.double().norm(dim=1)
        if not bool(((lengths - 1).abs() <= LENGTH_TOLERANCE).all()):
            raise InputError(
                "the atoms of a sparse encoder have length 1; received one of length "
                f"{float(lengths[(lengths - 1).abs().argmax()]):.3g}. Fetch the weights again, or learn them anew."
            )
        self.dictionary.copy_(atoms)
        gram, rate = gram_and_rate(self.dictionary.double())
        self.gram.copy_(gram)
        self.rate.copy_(rate)

    @torch.no_grad()
    def fit_features(self, images: Tensor, generator: torch.Generator) -> None:
        """Finds the mean and, where asked, the principal directions of the pooled codes of training pictures.

        Args:
            images: ``[B, C, size, size]``.
            generator: of the random start of the decomposition.

        Raises:
            InputError: if there are fewer pictures than components.
        """
        pooled = torch.cat([self.pooled(part) for part in images.split(256)]).double()
        self.feature_mean.copy_(pooled.mean(0))
        kept = self.config.components
        if kept is None:
            return
        if len(images) <= kept:
            raise InputError(f"{kept} components need more training images than that; received {len(images)}.")
        centred = pooled - pooled.mean(0)
        start = torch.randn(centred.shape[1], kept + 16, generator=generator, dtype=torch.float64).to(centred.device)
        basis = torch.linalg.qr(start)[0]
        for _ in range(4):  # subspace iteration: Halko, Martinsson & Tropp, SIAM Review 2011, algorithm 4.4
            basis = torch.linalg.qr(centred.T @ (centred @ basis))[0]
        _, spreads, turn = torch.linalg.svd(centred @ basis, full_matrices=False)
        directions = (basis @ turn.T)[:, :kept]
        spreads = spreads[:kept].clamp(min=1e-6 * float(spreads[0]) + 1e-12)
        self.projection.copy_(directions / (spreads / spreads[0]) ** self.config.balance)

    def codes(self, images: Tensor) -> Tensor:
        """Codes ``[B, places, places, atoms]`` of the patches of pictures ``[B, C, size, size]`` in [0, 1].

        Raises:
            InputError: if the pictures' channels or size are not the encoder's.
        """
        config, places = self.config, self.patches.places
        expected = (config.channels, config.size, config.size)
        if images.ndim != 4 or tuple(images.shape[-3:]) != expected:
            raise InputError(
                f"this encoder takes pictures [B, {config.channels}, {config.size}, {config.size}] in [0, 1]; "
                f"received {list(images.shape)}. Resize them, or load the data set with --data.size {config.size}."
            )
        with autocast_off(images):
            return self._solved(self.patches(images)).view(-1, places, places, config.atoms)

    def _solved(self, rows: Tensor) -> Tensor:
        config, solve = self.config, SOLVERS[self.config.solver]
        products = rows @ self.dictionary.to(rows.dtype).T

        def solved(part: Tensor) -> Tensor:
            problem = LassoProblem(part, self.gram.to(part), self.rate.to(part), config.penalty, config.positive)
            return solve(problem, config.steps)

        if torch.compiler.is_compiling():
            return solved(products)
        # a patch whose products are all within the penalty has the code zero: most of a drawing is paper
        largest = products.amax(1) if config.positive else products.abs().amax(1)
        some = (largest > config.penalty).nonzero().squeeze(1)
        codes = torch.zeros_like(products)
        at_once = NUMBERS * (GPU_TIMES if products.is_cuda else 1) // config.atoms
        for part in some.split(max(64, at_once)):
            codes[part] = solved(products[part])
        return codes

    def pooled(self, images: Tensor) -> Tensor:
        """Pooled codes raised to their power, ``[B, atoms * cells]``, before they are centred."""
        config = self.config
        maps = self.codes(images).abs().permute(0, 3, 1, 2)
        cells = (_pooled_evenly if config.cell is None else _pooled_overlapping)(maps, config).flatten(1)
        return cells if config.power == 1 else cells**config.power

    def put_together(self, codes: Tensor) -> Tensor:
        """Pictures ``[B, C, size, size]`` of codes ``[B, places, places, atoms]``; a pixel is the mean over patches."""
        config = self.config
        rows = codes.flatten(1, 2) @ self.dictionary.to(codes.dtype)
        shape = (config.size, config.size)
        fold = {"kernel_size": config.side, "padding": config.border, "stride": config.stride}
        total = F.fold(rows.transpose(1, 2), shape, **fold)
        covered = F.fold(torch.ones_like(rows).transpose(1, 2), shape, **fold)
        return total / covered.clamp(min=1)

    def rebuilt(self, images: Tensor) -> Tensor:
        """Pictures ``[B, C, size, size]`` put together from their codes; of whitened patches, the whitened pictures."""
        return self.put_together(self.codes(images))

    def atom_images(self) -> Tensor:
        """The atoms as pictures ``[atoms, C, side, side]`` in [0, 1], each at its own contrast; 0.5 is zero."""
        atoms = self.dictionary.view(-1, self.config.channels, self.config.side, self.config.side)
        return 0.5 + 0.5 * atoms / atoms.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)

    def maps(self, images: Tensor) -> Tensor:
        """Features ``[B, feature_size]`` of pictures ``[B, C, size, size]`` in [0, 1]."""
        features = self.pooled(images)
        if self.config.centre:
            features = features - self.feature_mean.to(features.dtype)
        if self.config.components is not None:
            with autocast_off(features):
                features = features @ self.projection.to(features.dtype)
        return F.normalize(features, dim=-1) if self.config.unit else features

    def posterior(self, images: Tensor) -> Posterior:
        raise InputError("a sparse encoder has no posterior; pretrain a guided VAE for one.")

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)


def _pooled_evenly(maps: Tensor, config: SparseConfig) -> Tensor:
    """``[B, atoms, grid, grid]`` of maps ``[B, atoms, places, places]``."""
    pool = F.adaptive_max_pool2d if config.pool == "max" else F.adaptive_avg_pool2d
    return pool(maps, config.grid)


def _pooled_overlapping(maps: Tensor, config: SparseConfig) -> Tensor:
    """``[B, atoms, grid, grid]``: the first cell begins at the picture's edge, the last one ends at the other."""
    assert config.cell is not None
    every = F.max_pool2d(maps, config.cell, 1) if config.pool == "max" else F.avg_pool2d(maps, config.cell, 1)
    corners = torch.linspace(0, every.shape[-1] - 1, config.grid, dtype=torch.float64).round().long().to(maps.device)
    return every[:, :, corners][..., corners]


def _loaded(encoder: nn.Module, _: Any) -> None:
    """Checks the atoms that were read, and finds what follows from them."""
    assert isinstance(encoder, SparseEncoder)
    if not encoder.dictionary.is_meta:
        encoder.set_dictionary(encoder.dictionary)
