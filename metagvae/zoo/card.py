"""Encoder cards: what a stranger needs to know of an encoder's weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from episodes import ImageBank
from metagvae.encoders.encoder import EncoderConfig


@dataclass
class EncoderCard:
    """Facts that a stranger needs about an encoder's weights.

    Args:
        name: of the encoder.
        trained_on: data set and split.
        method: how it was trained.
        licence: of the weights.
        trained_classes: names of all classes seen in training, here or in an encoder this one came from, by
            family of data sets; an evaluation refuses them.
        trained_images: marks of images of each of those classes (`episodes.picture_marks`), by which an evaluation
            knows them in a data set of another name.
        details: config, command, commit, measured errors.

    On disk the cards of shipped encoders name a file of both lists (`metagvae.zoo.trained_lists`).

    Example:
        >>> from metagvae import zoo
        >>> card = zoo.read_card("guided-vae-omniglot")
        >>> card.licence
        'of the pictures: MIT (brendenlake/omniglot)'
        >>> sorted(card.trained_classes)
        ['omniglot']
    """

    name: str = "unnamed"
    trained_on: str = "unknown"
    method: str = "unknown"
    licence: str = "unknown"
    trained_classes: dict[str, list[str]] = field(default_factory=dict)
    trained_images: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def counted(names: Iterable[str]) -> dict[str, Any]:
    """How many class names there are, and the SHA-256 of them, sorted, one a line: what a result keeps of a list."""
    lines = sorted(names)
    return {"count": len(lines), "sha256": sha256("\n".join(lines).encode()).hexdigest()}


def trained_on(bank: ImageBank, caution: str) -> str:
    """`EncoderCard.trained_on` of an encoder trained on a bank whose data set has that to say of its use."""
    seen = f"{bank.dataset}, {bank.split} split, fingerprint {bank.fingerprint}"
    return f"{seen}: {caution}" if caution else seen


def card_text(card: EncoderCard, config: EncoderConfig) -> str:
    """An encoder's card as Markdown, for the ``README.md`` beside its weights."""
    groups = ", ".join(f"{name} {len(units)}" for name, units in config.units.items())
    command = card.details.get("provenance", {}).get("command", "unknown")
    polarity = {"ink": "bright strokes on black", "light": "as photographed"}.get(config.polarity, config.polarity)
    return f"""# {card.name}

- **Trained on:** {card.trained_on}
- **Method:** {card.method}
- **Made by:** `{command}`, commit {card.details.get("provenance", {}).get("commit")}, seed {card.details.get("seed")}
- **Licence:** {card.licence}
- **Input:** pictures [B, {config.channels}, {config.size}, {config.size}] in [0, 1], {polarity}
- **Network:** {config.backbone}, width {config.width}, norm {config.norm}; latent units: {groups}
- **A call returns:** {" + ".join(config.features)}

```python
import metagvae

encoder = metagvae.load_encoder("{card.name}")
```
"""
