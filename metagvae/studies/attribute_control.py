"""Attributes set to a value: whether an independent classifier sees it, sees all others unchanged, and what leaks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for
from metagvae.encoders.encoder import Posterior
from metagvae.evaluation.lenet import LeNet, train_lenet
from metagvae.studies.generation import attribute_codes
from metagvae.studies.identity import Trial
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Synthesis

HIDDEN, STEPS = 128, 1500  # of the fresh adversary
READ = 20_000  # training images that it learns from


@dataclass(frozen=True)
class AttributeControl:
    """One attribute, set to each of its values on every test image; shares in [0, 1].

    Args:
        seen: the classifier's accuracy on real test images whose value is known.
        rebuilt: the same on these images rebuilt as they are: what drawing alone loses.
        agrees: images that the classifier gives the value that was set.
        changes: by other attribute, images whose value of it is known and whose verdict on it changes against the image
            rebuilt as it is.
        leak: accuracy of a fresh adversary that reads the posterior means of all other units.
        leak_of_draws: the same of one that reads draws of the posterior, as the decoder does in training.
        chance: share of the commonest value, what an adversary without any information reaches.
    """

    attribute: str
    values: int
    seen: float
    rebuilt: float
    agrees: float
    changes: dict[str, float]
    leak: float
    leak_of_draws: float
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
    vae: GuidedVAE, train: ImageBank, test: ImageBank, count: int, trial: Trial, judge: LeNet | None = None
) -> tuple[list[AttributeControl], LeNet]:
    """A row per guided attribute, and the classifier that judged.

    Args:
        count: test images.
        trial: its temperature and its seed are of the images drawn here and of the networks that judge.
        judge: one that knows these attributes; None trains it on the training images alone.
    """
    names = [group for group in vae.encoder.units if group in train.attributes]
    if not names:
        raise InputError(
            f"none of the VAE's groups {', '.join(vae.encoder.units)} is an attribute of {train.dataset}, which has "
            f"{', '.join(train.attributes) or 'none'}."
        )
    sizes = {name: len(train.attributes[name].names) for name in names}
    if judge is None or not set(names) <= set(judge.heads):
        with torch.enable_grad():
            judge = train_lenet(torch.as_tensor(train.images), image_labels(train, names), sizes, trial.seed)
    every, labels = to_float(torch.as_tensor(test.images)), image_labels(test, names)
    verdicts = judge.verdicts(every)
    synthesis = Synthesis(vae, trial.temperature)
    rows = torch.linspace(0, len(every) - 1, min(count, len(every))).long()
    latents = posteriors(vae, every[rows]).mean
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
        leak, chance = fresh_adversary(vae, train, test, name, trial.seed)
        of_draws, _ = fresh_adversary(vae, train, test, name, trial.seed, draws=True)
        right = (verdicts[name] == labels[name])[known].double().mean()
        still = (before[name] == labels[name][rows])[known[rows]].double().mean()
        found.append(
            AttributeControl(
                name, sizes[name], float(right), float(still), float(agrees.mean()), changes, leak, of_draws, chance
            )
        )
    return found, judge


def fresh_adversary(
    vae: GuidedVAE, train: ImageBank, test: ImageBank, name: str, seed: int = 0, draws: bool = False
) -> tuple[float, float]:
    """Held-out accuracy of a new network that reads an attribute from all units but its own, and chance's.

    Args:
        draws: whether it reads draws of the posterior, fresh ones at every step, instead of its means.
    """
    own = set(vae.encoder.units[name])
    rest = [unit for unit in range(vae.encoder.config.latent) if unit not in own]
    sets = []
    for bank, most in ((train, READ), (test, len(test))):
        rows = torch.linspace(0, len(bank) - 1, min(most, len(bank))).long()
        labels = image_labels(bank, [name])[name][rows]
        rows, labels = rows[labels >= 0], labels[labels >= 0]
        posterior = posteriors(vae, to_float(torch.as_tensor(bank.images[rows])))
        sets.append((posterior.mean[:, rest], (0.5 * posterior.log_var[:, rest]).exp() * draws, labels))
    (means, noise, y), (held, held_noise, truth) = sets
    centre, spread = means.mean(0), (means.var(0) + noise.square().mean(0)).sqrt().clamp(min=1e-6)

    def read(chosen: Tensor, deviations: Tensor) -> Tensor:
        return (chosen + deviations * torch.randn_like(chosen) - centre) / spread

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, 7))
        values = len(train.attributes[name].names)
        network = nn.Sequential(
            nn.Linear(len(rest), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, values)
        )
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        with torch.enable_grad():
            for _ in range(STEPS):
                chosen = torch.randint(len(means), (256,))
                loss = F.cross_entropy(network(read(means[chosen], noise[chosen])), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            right = network(read(held, held_noise)).argmax(1) == truth
    return float(right.double().mean()), float(torch.bincount(truth).max() / len(truth))


@torch.no_grad()
def posteriors(vae: GuidedVAE, images: Tensor) -> Posterior:
    """q(z|x) of images ``[B, C, H, W]``, a thousand at a time."""
    parts = [vae.infer(part) for part in images.split(1000)]
    return Posterior(torch.cat([part.mean for part in parts]), torch.cat([part.log_var for part in parts]))
