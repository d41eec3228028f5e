"""Trained things by name: each is opened once, and says its card, its config, its encoder, its VAE, its learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from episodes import ImageBank, InputError
from episodes.datasets import Dataset, make_dataset
from episodes.paths import expanded
from episodes.picture_marks import class_marks
from episodes.torch_defaults import plain_defaults
from episodes.untrusted.typed import fits
from metagvae.config.episodes import EpisodeSection
from metagvae.config.parse import section
from metagvae.config.sections import DataConfig, LearnerSection, VAESection
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.external import load_foreign
from metagvae.learners import Learner, make_learner
from metagvae.runs.class_families import classes_by_family
from metagvae.runs.run import read_config
from metagvae.storage.strict_load import build, load_strictly
from metagvae.storage.tensors import read_tensors
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import new_vae
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.external import foreign_card
from metagvae.zoo.generators import DECODER, generator_tensors, read_generator
from metagvae.zoo.hub import download, load_timm_folder, timm_architecture
from metagvae.zoo.load import CONFIG, load_folder, read_folder, shipped_encoders


class Trained:
    """A trained thing, found by its name; its files are read when first asked for, and each once.

    Args:
        name: a shipped name, the folder of a run or an encoder, ``hub:OWNER/NAME``, ``timm:NAME`` or
            ``torchvision:NAME``.

    Raises:
        InputError: if there is none of that name.

    Example:
        >>> from metagvae import zoo
        >>> trained = zoo.open("guided-vae-omniglot")
        >>> trained.card.licence
        'of the pictures: MIT (brendenlake/omniglot)'
        >>> trained.encoder(["content"]).features
        ['content']
    """

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        self._package: str | None = None  # timm:NAME or torchvision:NAME whose weights are not in a folder of ours
        self._folder: Path | None = None
        provider, colon, rest = self.name.partition(":")
        if colon and provider in ("timm", "torchvision"):
            self._package = self.name
        elif colon and provider == "hub":
            self._folder = download(rest)
            self._package = timm_architecture(self._folder)
        else:
            self._folder = _encoder_folder(self.name)

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        """The encoder's folder.

        Raises:
            InputError: if it is a network of timm or torchvision, which has none.
        """
        if self._folder is None:
            raise InputError(f"{self.name} is a network of another package and has no folder; export it to one first.")
        return self._folder

    @cached_property
    def _described(self) -> tuple[type[Encoder], EncoderConfig, EncoderCard]:
        return read_folder(self.folder)

    @cached_property
    def card(self) -> EncoderCard:
        """Where the encoder comes from, what it was trained on, its licence."""
        if self._package is not None:
            return foreign_card(self._package)
        return self._described[2]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config of the run that this is; of a generator, the sections of it that were kept.

        Raises:
            InputError: if it is neither.
        """
        if self.is_run or self._package is not None or not self._draws:
            return read_config(self.name)
        return read_generator(self.folder)

    @property
    def _draws(self) -> bool:
        """Whether it is an encoder folder that carries its decoder."""
        return (self.folder / DECODER).is_file() and not self.is_run

    @property
    def is_run(self) -> bool:
        """Whether it is the folder of a run, which has a config, and perhaps a VAE or a learner."""
        return (expanded(self.name) / "config.yaml").is_file()

    @property
    def data(self) -> DataConfig:
        """The data section of the run's config."""
        return section(DataConfig, self.config, "data", self.name)

    def dataset(self, name: str | None = None, root: str | None = None) -> Dataset:
        """The data set that it was trained on, or the one of ``name`` with images of the same size."""
        own = self.data
        if name in (None, own.name):
            return replace(own, root=root or own.root).make()
        return make_dataset(str(name), root=root, size=self._described[1].size)

    @property
    def attributes(self) -> dict[str, int]:
        """How many values each attribute had that the run could be taught."""
        sizes = self.config.get("attributes")
        if not fits(sizes, dict[str, int]):
            raise InputError(f"the config of the run {self.name} needs a section 'attributes' of numbers by name.")
        assert isinstance(sizes, dict)
        return sizes

    @property
    def factors(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest known number of each factor of the images that the run was trained on."""
        found = self.config.get("factors", {})
        if not fits(found, dict[str, list[float]]) or any(len(pair) != 2 for pair in found.values()):
            raise InputError(f"the section 'factors' of the run {self.name} must hold two numbers by name.")
        return {name: (low, high) for name, (low, high) in found.items()}

    @plain_defaults()
    def encoder(self, features: list[str] | None = None) -> Encoder:
        """The encoder, in evaluation mode, in float32 on the CPU whatever torch's defaults are.

        Args:
            features: what a call returns; None keeps the stored choice. See `Encoder.features`.

        Raises:
            InputError: if the files are damaged, or the weights do not fit the config.
        """
        if self._package is None:
            kind, config, _ = self._described
            encoder = load_folder(self.folder, kind, replace(config))
        elif self._folder is not None:
            encoder = load_timm_folder(self._folder, self._package)
        else:
            encoder = load_foreign(self._package)
        if features is not None:
            encoder.features = features
        return encoder.eval()

    @plain_defaults()
    def vae(self) -> GuidedVAE:
        """The whole VAE of a pretraining run, of a training run of mode guided, or of a generator, in evaluation mode.

        Raises:
            InputError: if it is none of these, or its files are damaged.
        """
        if not self.is_run and self._package is None:
            config, path = read_generator(self.folder), self.folder / DECODER
        else:
            config, path = self.config, expanded(self.name) / DECODER
        if not path.is_file():
            if config.get("dictionary") is not None:
                raise InputError(f"{self.name} is a sparse encoder's run, which has no decoder; give one of a VAE.")
            raise InputError(
                f"{self.name} is not the folder of a finished `metagvae pretrain`, nor of a `metagvae train` of mode "
                f"guided; it has no {DECODER}."
            )
        tensors = read_tensors(path) if self.is_run else generator_tensors(self.folder)
        chosen = section(VAESection, config, "vae", self.name)
        vae = new_vae(self.encoder(), chosen, self.attributes, tensors, str(path), self.factors)
        load_strictly(vae, tensors, str(path))
        return vae.eval()

    @plain_defaults()
    def learner(self) -> Learner:
        """The best learner of a finished training run, in evaluation mode.

        Raises:
            InputError: if the folder is no such run, or its files are damaged.
        """
        path = expanded(self.name) / "learner.safetensors"
        config = self.config
        if config["kind"] != "train" or not path.is_file():
            raise InputError(
                f"{self.name} is not the folder of a finished `metagvae train`; it has no learner.safetensors."
            )
        encoder = self.encoder()
        chosen = section(LearnerSection, config, "learner", self.name)
        way = section(EpisodeSection, config, "episodes", self.name).way
        tensors = read_tensors(path)
        learner = build(lambda: make_learner(chosen.name, encoder, way, **chosen.options), str(path), tensors)
        load_strictly(learner, tensors, str(path))
        return learner.eval()


def open(name: str | Path | Trained) -> Trained:
    """The trained thing of a name; what is open already is returned as it is. See `Trained`."""
    return name if isinstance(name, Trained) else Trained(name)


def load_encoder(name: str | Path | Trained, features: list[str] | None = None) -> Encoder:
    """A pretrained encoder, in evaluation mode, in float32 on the CPU whatever torch's defaults are.

    Args:
        name: a shipped name such as ``guided-vae-omniglot``, an encoder folder, a run folder, ``timm:NAME``,
            ``torchvision:NAME`` or ``hub:OWNER/NAME``.
        features: what a call returns; None keeps the stored choice. See `Encoder.features`.

    Raises:
        InputError: if there is none, the files are damaged, or the weights do not fit the config.

    Example:
        >>> import metagvae, torch
        >>> encoder = metagvae.load_encoder("guided-vae-omniglot")
        >>> encoder(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 32])
    """
    return open(name).encoder(features)


def read_card(name: str | Path | Trained) -> EncoderCard:
    """The card of a trained thing."""
    return open(name).card


def classes_seen(bank: ImageBank, sources: Sequence[Trained] = ()) -> dict[str, list[str]]:
    """`EncoderCard.trained_classes` of an encoder trained on a bank that starts from, or is taught by, ``sources``."""
    seen = {family: set(names) for family, names in classes_by_family(bank.dataset, bank.class_names).items()}
    for source in sources:
        for family, known in source.card.trained_classes.items():
            seen.setdefault(family, set()).update(known)
    return {family: sorted(names) for family, names in seen.items()}


def images_seen(bank: ImageBank, sources: Sequence[Trained] = ()) -> list[str]:
    """`EncoderCard.trained_images` of an encoder trained on a bank that starts from, or is taught by, ``sources``."""
    return class_marks(bank, [mark for source in sources for mark in source.card.trained_images])


def _encoder_folder(name: str) -> Path:
    shipped = shipped_encoders()
    if name in shipped:
        return shipped[name]
    path = expanded(name)
    for folder in (path, path / "encoder"):
        if (folder / CONFIG).is_file():
            return folder
    raise InputError(
        f"no encoder {name!r}: it is none of the shipped ones ({', '.join(shipped) or 'none'}), and neither "
        f"{path / CONFIG} nor {path / 'encoder' / CONFIG} exists. Give a shipped name, an encoder folder or the folder "
        "of a finished run, or timm:NAME, torchvision:NAME or hub:OWNER/NAME."
    )
