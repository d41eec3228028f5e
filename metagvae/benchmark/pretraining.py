"""Guided-VAE pretraining with the authors' MNIST network: pictures per second, data and step together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import count

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from episodes import AugmentConfig, ImageBank, to_float, warp
from metagvae.benchmark.networks import stepping
from metagvae.benchmark.pictures import bank_or_noise
from metagvae.benchmark.prototypes import flops_per_unit
from metagvae.benchmark.rows import Context, Row, compare
from metagvae.benchmark.timing import Samples, Way
from metagvae.config.sections import EncoderSection, VAESection
from metagvae.training.pretraining import Shuffle
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import new_encoder, new_vae

GROUP = "pretraining"
BATCH, LATENT = 128, 10


def network(context: Context, bank: ImageBank) -> GuidedVAE:
    """The authors' encoder and decoder with deformable PCA of rotation and scale."""
    guidance = [{"name": "deformable_pca", "transforms": ["rotation", "scale"]}]
    width = context.sizes.width
    section = VAESection(decoder="ding", decoder_width=width, guidance=guidance)
    encoder = new_encoder(EncoderSection(backbone="ding", width=width, latent=LATENT), section, bank, context.seed)
    return new_vae(encoder, section, {}).train()


def total_loss(vae: GuidedVAE, images: Tensor) -> Tensor:
    return torch.stack([term.float() for term in vae.losses(images).values()]).sum()


def ours(context: Context, bank: ImageBank) -> Way:
    """As `metagvae.training.pretraining` does it: the set on the device, batches gathered there."""
    vae = network(context, bank)
    context.device.place(vae)
    bank = bank.to(context.device.device)
    shuffle, numbers = Shuffle(len(bank), BATCH, context.seed), count()

    def loss() -> Tensor:
        chosen = shuffle(next(numbers)).to(context.device.device)
        images = warp(to_float(bank.gather(chosen)), AugmentConfig()).images
        return total_loss(vae, context.device.layout(images))

    return Way("ours", stepping(vae, loss, context.device), shuffle.batch)


class _Upstream(Dataset[Tensor]):
    """Pictures as torchvision's MNIST gives them: an array in memory, by way of PIL, to a float tensor."""

    def __init__(self, bank: ImageBank) -> None:
        self.images = bank.images[:][:, 0].numpy()

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = to_tensor(Image.fromarray(self.images[index], mode=None))
        return image

    def __len__(self) -> int:
        return len(self.images)


def dataloader(context: Context, bank: ImageBank) -> Way:
    """The same network and loss fed by a DataLoader of no workers, in float32, torch's default layout."""
    vae = network(context, bank).to(context.device.device)
    loader = DataLoader(_Upstream(bank), BATCH, shuffle=True, drop_last=True)

    def endless() -> Iterator[Tensor]:
        while True:
            yield from loader

    batches = endless()
    step = stepping(vae, lambda: total_loss(vae, next(batches).to(context.device.device)))
    return Way("DataLoader without workers, float32", step, BATCH)


def rows(context: Context) -> list[Row]:
    """The row on pretraining."""
    bank = bank_or_noise(context, "mnist", "train", 10, context.sizes.pictures // 10)
    way = ours(context, bank)
    flops = flops_per_unit(way)
    precision = "bfloat16" if context.device.autocast else "float32"

    def load(samples: Samples) -> tuple[float, str]:
        return flops / statistics.median(samples.ours), f"conv {precision}"

    return [
        compare(
            context,
            GROUP,
            f"Guided-VAE, the authors' MNIST network, batch {BATCH}",
            "pictures/s",
            way,
            lambda: dataloader(context, bank),
            "DataLoader without workers, float32",
            wanted=context.wanted(2, 10),
            load=load,
            note=f"{bank.dataset}, {precision}; same network, losses and optimiser",
        )
    ]
