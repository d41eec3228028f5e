"""Cards of networks of timm and torchvision: what is known of their weights, and which classes these have seen."""

from __future__ import annotations

import json
from importlib.resources import files

from metagvae.encoders.external import describe_foreign
from metagvae.zoo.card import EncoderCard


def foreign_card(source: str) -> EncoderCard:
    """The facts known of ``timm:NAME`` or ``torchvision:NAME``, in the words of this package's cards.

    Networks trained on ImageNet have seen every class of miniImageNet.
    """
    config, about = describe_foreign(source)
    weights = str(about["weights"])
    # the tags of both packages name the data last trained on: in1k, in22k, in12k_ft_in1k, IMAGENET1K_V1
    imagenet = "in1k" in weights or "in22k" in weights or "in12k" in weights or "IMAGENET" in weights
    seen = {"miniimagenet": sorted(imagenet_classes())} if imagenet else {}
    return EncoderCard(
        name=source,
        trained_on="ImageNet" if imagenet else f"see the package's page of the weights {weights}",
        method=f"{config.backbone}, weights {weights}",
        licence=str(about["licence"]),
        trained_classes=seen,
    )


def imagenet_classes() -> set[str]:
    """The WordNet ids of miniImageNet's classes, all of them of ImageNet."""
    splits = json.loads((files("episodes") / "splits" / "miniimagenet.json").read_text(encoding="utf-8"))["splits"]
    return {name for names in splits.values() for name in names.split()}
