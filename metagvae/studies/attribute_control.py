"""Attributes set to a value: whether an independent classifier sees it, sees all others unchanged, and what leaks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for
from metagvae.evaluation.lenet import LeNet, train_lenet
from metagvae.studies.generation import attribute_codes
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis

HIDDEN, STEPS = 128, 1500  # of the fresh adversary
READ = 20_000  # training images that it learns from


@dataclass(frozen=True)
class AttributeControl:
    """One attribute, set to each of its values on every test image; shares in [0, 1].

    Args:
        seen: the classifier's accuracy on real test images whose value is known.
        agrees: images that the classifier gives the value that was set.
        changes: by other attribute, images whose value of it is known and whose verdict on it changes against the image
            rebuilt as it is.
        leak: accuracy of a fresh adversary that reads all other units.
        chance: share of the commonest value, what an adversary without any information reaches.
    """

    attribute: str
    values: int
    seen: float
    agrees: float
    changes: dict[str, float]
    leak: float
    chance: float


def image_labels(bank: ImageBank, names: list[str]) -> dict[str, Tensor]:
    """int64 ``[images]`` of each attribute, below zero where unknown."""
    missing = [name for name in names if name not in bank.attributes]
    if missing:
        raise InputError(
            f"{bank.dataset} has no attribute {missing[0]!r}; it has {', '.join(bank.attributes) or 'none'}."
        )
    return {name: bank.attributes[name].values.cpu()[bank.labels.cpu()] for name in names}


@torch.no_grad()
def control_of_attributes(
    vae: GuidedVAE, train: ImageBank, test: ImageBank, count: int = 500, seed: int = 0
) -> tuple[list[AttributeControl], LeNet]:
    """A row per guided attribute, and the classifier that judged, trained on the training images alone."""
    names = [group for group in vae.encoder.units if group in train.attributes]
    if not names:
        raise InputError(
            f"none of the VAE's groups {', '.join(vae.encoder.units)} is an attribute of {train.dataset}, which has "
            f"{', '.join(train.attributes) or 'none'}."
        )
    sizes = {name: len(train.attributes[name].names) for name in names}
    shown = torch.as_tensor(train.images)
    with torch.enable_grad():
        judge = train_lenet(shown, image_labels(train, names), sizes, seed)
    every, labels = to_float(torch.as_tensor(test.images)), image_labels(test, names)
    verdicts = judge.verdicts(every)
    synthesis = Synthesis(vae)
    rows = torch.linspace(0, len(every) - 1, min(count, len(every))).long()
    latents = _means(vae, every[rows])
    before = judge.verdicts(synthesis.draw(latents[None]).images[0])
    found = []
    for name in names:
        known = labels[name] >= 0
        drawn = synthesis.setting(latents, name, attribute_codes(synthesis, train, name))
        after = [judge.verdicts(images) for images in drawn.images]
        places = [train.attributes[name].names.index(value) for value in drawn.rows]
        agrees = torch.stack([(each[name] == place).double() for each, place in zip(after, places, strict=True)])
        changes = {}
        for other in names:
            if other != name:
                # where its own value is unknown an image lies on the border between two verdicts
                clear = labels[other][rows] >= 0
                changed = torch.stack([each[other] != before[other] for each in after])
                changes[other] = float(changed[:, clear].double().mean())
        leak, chance = fresh_adversary(vae, train, test, name, seed)
        seen = float((verdicts[name] == labels[name])[known].double().mean())
        found.append(AttributeControl(name, sizes[name], seen, float(agrees.mean()), changes, leak, chance))
    return found, judge


def fresh_adversary(vae: GuidedVAE, train: ImageBank, test: ImageBank, name: str, seed: int = 0) -> tuple[float, float]:
    """Held-out accuracy of a new network that reads an attribute from all units but its own, and chance's."""
    own = set(vae.encoder.units[name])
    rest = [unit for unit in range(vae.encoder.config.latent) if unit not in own]
    sets = []
    for bank, most in ((train, READ), (test, len(test))):
        rows = torch.linspace(0, len(bank) - 1, min(most, len(bank))).long()
        labels = image_labels(bank, [name])[name][rows]
        rows, labels = rows[labels >= 0], labels[labels >= 0]
        sets.append((_means(vae, to_float(torch.as_tensor(bank.images[rows])))[:, rest], labels))
    (x, y), (held, truth) = sets
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed_for(seed, 7))
        values = len(train.attributes[name].names)
        network = nn.Sequential(
            nn.Linear(len(rest), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, values)
        )
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(STEPS):
            chosen = torch.randint(len(x), (256,))
            loss = F.cross_entropy(network((x[chosen] - mean) / std), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        right = network((held - mean) / std).argmax(1) == truth
    return float(right.double().mean()), float(torch.bincount(truth).max() / len(truth))


def _means(vae: GuidedVAE, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([vae.infer(part).mean for part in images.split(1000)])
