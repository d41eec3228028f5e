"""LeNet-5 trained on labelled images: a judge of generated ones that shares nothing with the VAE that drew them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for

BATCH, RATE, FEATURES = 128, 2e-3, 84
LENET = "lenet"  # what a command calls it


class LeNet(nn.Module):
    """The network of LeCun, Bottou, Bengio & Haffner (Proc. IEEE 1998) with ReLU and maximum pooling, a head per label.

    Args:
        sizes: how many values each label has, by name.

    Example:
        >>> import torch
        >>> from metagvae.evaluation.lenet import LeNet
        >>> judge = LeNet({"digit": 10, "slant": 2})
        >>> {name: list(logits.shape) for name, logits in judge(torch.rand(3, 1, 28, 28)).items()}
        {'digit': [3, 10], 'slant': [3, 2]}
        >>> judge.features(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 84])
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.third, self.fourth = nn.Linear(400, 120), nn.Linear(120, FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, size) for name, size in sizes.items()})

    def features(self, images: Tensor) -> Tensor:
        """``[B, 84]`` of images ``[B, 1, 28, 28]`` in [0, 1]: what the heads read."""
        if images.shape[1:] != (1, 28, 28):
            raise InputError(f"LeNet judges images [B, 1, 28, 28]; received {list(images.shape)}.")
        x = F.max_pool2d(F.relu(self.first(images)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2).flatten(1)
        return F.relu(self.fourth(F.relu(self.third(x))))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits ``[B, values]`` by label."""
        x = self.features(images)
        return {name: head(x) for name, head in self.heads.items()}

    @torch.no_grad()
    def verdicts(self, images: Tensor) -> dict[str, Tensor]:
        """The likeliest value of each label, int64 ``[B]``."""
        parts = [self(part) for part in images.split(1000)]
        return {name: torch.cat([part[name] for part in parts]).argmax(1) for name in self.heads}


def class_features(bank: ImageBank, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Images ``[B, 1, 28, 28]`` to features ``[B, 84]`` of a LeNet trained on a bank's images and classes."""
    images = torch.as_tensor(bank.images)
    return train_lenet(images, {"class": bank.labels.cpu()}, {"class": bank.num_classes}, seed).features


def train_lenet(
    images: Tensor, labels: Mapping[str, Tensor], sizes: Mapping[str, int], seed: int = 0, epochs: int = 3
) -> LeNet:
    """A LeNet, in evaluation mode; a pure function of its arguments.

    Args:
        images: uint8 ``[B, 1, 28, 28]``.
        labels: int64 ``[B]`` by name; below zero is unknown and takes no part.
        sizes: values of each label.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, 5))
        judge = LeNet(sizes)
    steps = max(1, len(images) // BATCH) * epochs
    optimizer = torch.optim.Adam(judge.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed_for(seed, 6))
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: max(BATCH, len(order) // BATCH * BATCH)].split(BATCH):
            logits = judge(to_float(images[chosen]))
            terms = []
            for name, values in labels.items():
                wanted = values[chosen]
                if bool((wanted >= 0).any()):
                    terms.append(F.cross_entropy(logits[name], wanted.clamp(min=-1), ignore_index=-1))
            optimizer.zero_grad()
            torch.stack(terms).sum().backward()
            optimizer.step()
            schedule.step()
    return judge.eval()
