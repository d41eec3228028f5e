"""Classes made of codes: images that a generator draws of one code under many draws of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from episodes import ImageBank, InputError
from metagvae.vae.guided_vae import GuidedVAE

MOST = 200_000  # images, which are held at once


@torch.no_grad()
def code_classes(
    vae: GuidedVAE, classes: int = 500, each: int = 10, free: Sequence[str] = ("noise",), seed: int = 0
) -> ImageBank:
    """Drawn images whose classes share all latent units but those of the groups ``free``.

    Episodes of such classes train a learner without a label (compare LASIUM, Khodadadeh et al., ICLR 2021). A guided
    VAE's ``geometry`` may be free as well as the noise of `UniformCodes`.

    Args:
        vae: in evaluation mode.
        classes: how many codes are drawn from its prior.
        each: images of each.
        free: groups of units that differ within a class.
        seed: of the draws; the same seed gives the same images.

    Raises:
        InputError: if there is no such group, nothing would be shared, or the images are too many.

    Example:
        >>> from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
        >>> from metagvae.vae.code_classes import code_classes
        >>> units = {"geometry": [0, 1], "content": [2, 3, 4, 5]}
        >>> vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6, units=units)), Decoder(6, 1, 28)).eval()
        >>> bank = code_classes(vae, classes=3, each=4, free=["geometry"])
        >>> bank.num_classes, len(bank)
        (3, 12)
    """
    units, config = vae.encoder.units, vae.encoder.config
    unknown = [group for group in free if group not in units]
    if unknown or not free or set(free) == set(units):
        raise InputError(
            f"classes of codes need groups of latent units that are free, and others that are shared; received "
            f"{', '.join(free)[:200] or 'none'} of {', '.join(units)}."
        )
    if classes < 2 or each < 2 or classes * each > MOST:
        raise InputError(
            f"classes of codes need 2 classes or more of 2 images or more, and at most {MOST:,} images; received "
            f"{classes} and {each}."
        )
    moved = [unit for group in free for unit in units[group]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shared, rest = vae.prior.sample(classes, {}), vae.prior.sample(classes * each, {})
    z = shared.repeat_interleave(each, 0)
    z[:, moved] = rest[:, moved]
    drawn = torch.cat([(255 * vae.decode(rows)).round().to(torch.uint8).cpu() for rows in z.split(500)])
    parts = [(f"code {number}", images) for number, images in enumerate(drawn.split(each))]
    return ImageBank.from_classes(parts, dataset="codes", split="train", polarity=config.polarity)
