"""Whether a decoder helps a feature distance: queries rebuilt from support images, and support images drawn again.

Analysis by synthesis: the second score of a support image is how badly its content, in the query's own pose, rebuilds
the query. Decoded variation: the prototype takes in copies of the support image, redrawn in the poses or with the hand
of training images. Beside both stand the plain explanations: the same done with warps of pixels, no decoder asked.
Every weight is chosen on validation characters.

python experiments/synthesis.py --json experiments/results/synthesis.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes import AugmentConfig, Episodes, EpisodeSampler, EpisodeShape, ImageBank, augment, to_float
from episodes.augment import resample, sampling_grid
from episodes.datasets import make_dataset
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.encoders.warp_average import MILD, WarpAverage
from metagvae.evaluation.embedding import embed_bank
from metagvae.evaluation.results import interval
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.vae.guided_vae import GuidedVAE

COPIES = 4
CHARACTERS = 120  # of each split, evenly spread; of each of them every drawing
QUERIES = 5  # a class
WARPS = 50  # of a support image, the image itself among them, that pixels are compared under
WIDE = AugmentConfig(rotation=15, scale=0.2, shear=0.2, translation=0.08)
TEMPERATURE = 0.25  # copies are drawn with harder edges, as docs/results/generator.md judges them
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)  # of the second score
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the copies in a prototype


@dataclass(frozen=True)
class Material:
    """A bank's images and all that is computed of each once.

    Attributes:
        images: float32 ``[M, 1, side, side]``.
        features, averaged: ``[M, D]``; of an image, and averaged over it and `COPIES` warped copies.
        latents: posterior means ``[M, latent]``.
    """

    images: Tensor
    features: Tensor
    averaged: Tensor
    latents: Tensor

    @classmethod
    def of(cls, bank: ImageBank, vae: GuidedVAE, encoder: nn.Module) -> Material:
        device, images = Device.choose("cpu"), to_float(bank.images[:])
        features, averaged = (embed_bank(e, bank, device) for e in (encoder, WarpAverage(encoder, COPIES)))
        return cls(images, features, averaged, torch.cat([vae.infer(part).mean for part in images.split(500)]))


def squared(queries: Tensor, support: Tensor) -> Tensor:
    """Squared distances ``[Q, N]`` of rows of any shape."""
    return torch.cdist(queries.flatten(1), support.flatten(1)).square()


def synthesis(vae: GuidedVAE, latents: Tensor, queries: Tensor, images: Tensor) -> Tensor:
    """Minus log p(query | content of a support image, geometry of the query), in nats, ``[Q, N]``.

    Args:
        vae: whose geometry units warp what its content units draw.
        latents: of the support images, ``[N, latent]``.
        queries: latents of the queries, ``[Q, latent]``.
        images: the queries, ``[Q, 1, side, side]``.
    """
    upright = vae.decoder.decoder(latents * vae.decoder.upright)  # type: ignore[operator]
    drawn = upright[:, 0].expand(len(queries), -1, -1, -1)  # the support images as channels, each query's warp on all
    logits = resample(drawn, sampling_grid(vae.decoder.matrices(queries), drawn.shape))  # type: ignore[operator]
    return F.binary_cross_entropy_with_logits(logits, images.expand_as(logits), reduction="none").sum((2, 3))


def warped(images: Tensor, count: int, config: AugmentConfig) -> Tensor:
    """The same ``count`` warps of each image ``[N, 1, side, side]``: ``[N, count, 1, side, side]``."""
    stacked = images.flatten(0, 1)[None]
    drawn = [augment(stacked, config, torch.Generator().manual_seed(number)) for number in range(count)]
    return torch.cat(drawn).unsqueeze(2).transpose(0, 1)


def blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(images, 3, 1, 1), 3, 1, 1)


def nearest_warp(queries: Tensor, support: Tensor) -> Tensor:
    """Squared distance of blurred pixels to the nearest warp of each support image, ``[Q, N]``."""
    copies = torch.cat((support[:, None], warped(support, WARPS - 1, WIDE)), 1)
    flat = blurred(copies.flatten(0, 1))
    return squared(blurred(queries), flat).view(len(queries), len(support), -1).amin(2)


class Hands:
    """Moves in latents that redraw an image: from one drawing of a training character to another."""

    def __init__(self, vae: GuidedVAE, train: ImageBank, seed: int = 0) -> None:
        spread = torch.arange(0, train.num_classes, 6)
        rows = torch.stack([torch.arange(int(train.offsets[c]), int(train.offsets[c]) + 20) for c in spread])
        images = to_float(train.images[rows.flatten()])
        means = torch.cat([vae.infer(part).mean for part in images.split(500)])
        self.latents, self.generator = means.view(*rows.shape, -1), torch.Generator().manual_seed(seed)
        self.vae, self.geometry = vae, vae.encoder.units["geometry"]

    def redrawn(self, latents: Tensor, content: float) -> Tensor:
        """`COPIES` drawings ``[N, COPIES, 1, side, side]`` of each latent, in the poses of other training drawings.

        Args:
            content: how much of the move of content units goes along; 0 for poses alone.
        """
        count = len(latents) * COPIES
        character = torch.randint(len(self.latents), (count,), generator=self.generator)
        pairs = torch.rand(count, self.latents.shape[1], generator=self.generator).argsort(1)[:, :2]
        moves = self.latents[character, pairs[:, 0]] - self.latents[character, pairs[:, 1]]
        scale = torch.full((latents.shape[1],), content)
        scale[self.geometry] = 1.0
        z = latents.repeat_interleave(COPIES, 0) + scale * moves
        return self.drawn(z).unflatten(0, (len(latents), COPIES))

    def drawn(self, z: Tensor) -> Tensor:
        return (self.vae.decoder(z) / TEMPERATURE).sigmoid()  # type: ignore[no-any-return]


Arm = Callable[[Tensor, Tensor], list[Tensor]]  # numbers of support and query images to distances [Q, N] per weight


def second_scores(score: Callable[[Tensor, Tensor], Tensor], material: Material, unit: float) -> Arm:
    """The feature distance and ``unit`` times each of `WEIGHTS` times a second score."""

    def arm(support: Tensor, query: Tensor) -> list[Tensor]:
        first, second = squared(material.features[query], material.features[support]), score(support, query)
        return [first + weight * unit * second for weight in WEIGHTS]

    return arm


def prototypes(copies: Callable[[Tensor], Tensor], material: Material, encoder: nn.Module) -> Arm:
    """Distances to the mean of a support image's feature and, with each of `SHARES`, that of its copies.

    Args:
        copies: numbers of support images to a change ``[N, D]`` from the feature to that of the copies, for share 1.
    """

    def arm(support: Tensor, query: Tensor) -> list[Tensor]:
        own, change = material.features[support], copies(support)
        return [squared(material.features[query], own + share * change) for share in SHARES]

    return arm


class Comparison:
    """The arms of one encoder, on validation episodes and then on test episodes."""

    def __init__(self, vae: GuidedVAE, encoder: nn.Module, hands: Hands, banks: dict[str, ImageBank]) -> None:
        self.vae, self.encoder, self.hands = vae, encoder, hands
        self.units: dict[str, float] = {}
        self.materials = {split: Material.of(bank, vae, encoder) for split, bank in banks.items()}
        self.banks = banks

    def scores(self, material: Material) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        def rebuilt(support: Tensor, query: Tensor) -> Tensor:
            return synthesis(self.vae, material.latents[support], material.latents[query], material.images[query])

        def pixels(support: Tensor, query: Tensor) -> Tensor:
            return nearest_warp(material.images[query], material.images[support])

        return {"query rebuilt from the support image": rebuilt, f"pixels, nearest of {WARPS} warps": pixels}

    def changes(self, material: Material) -> dict[str, Callable[[Tensor], Tensor]]:
        hands = self.hands

        def mean(copies: Tensor) -> Tensor:
            return torch.Tensor(self.encoder(copies.flatten(0, 1)).unflatten(0, copies.shape[:2]).mean(1))

        def redrawn(content: float) -> Callable[[Tensor], Tensor]:
            # against the image rebuilt, so that what rebuilding itself does to a feature is not counted
            def change(support: Tensor) -> Tensor:
                z = material.latents[support]
                return mean(hands.redrawn(z, content)) - self.encoder(hands.drawn(z))

            return change

        def plain(support: Tensor) -> Tensor:
            return mean(warped(material.images[support], COPIES, MILD)) - material.features[support]

        return {
            f"support redrawn {COPIES} times, other poses": redrawn(0.0),
            f"support redrawn {COPIES} times, other hands": redrawn(0.5),
            f"support warped {COPIES} times": plain,
        }

    def errors(self, split: str, way: int, count: int) -> dict[str, np.ndarray]:
        """float64 ``[weights, count]`` by arm: the share of queries got wrong."""
        material, episodes = self.materials[split], Episodes(EpisodeShape(way, 1, QUERIES), seed=0, stream=split)
        drawn = EpisodeSampler(self.banks[split], episodes).span(0, count)
        arms = dict(self._arms(material, drawn.images[0]))
        found: dict[str, list[list[float]]] = {name: [] for name in arms}
        for images in drawn.images:
            support, query = images[:, 0], images[:, 1:].flatten()
            labels = torch.arange(way).repeat_interleave(QUERIES)
            for name, arm in arms.items():
                wrong = [(each.argmin(1) != labels).double().mean().item() for each in arm(support, query)]
                found[name].append(wrong)
        return {name: np.array(wrong).T for name, wrong in found.items()}

    def _arms(self, material: Material, first: Tensor) -> Iterator[tuple[str, Arm]]:
        yield (
            f"both averaged over {COPIES} warps",
            lambda support, query: [squared(material.averaged[query], material.averaged[support])],
        )
        support, query = first[:, 0], first[:, 1:].flatten()
        features = squared(material.features[query], material.features[support]).std(1).mean()
        for name, score in self.scores(material).items():
            # weights in units of the feature distance's spread over ways, taken from the first episode seen
            unit = self.units.setdefault(name, float(features / score(support, query).std(1).mean()))
            yield name, second_scores(score, material, unit)
        for name, change in self.changes(material).items():
            yield name, prototypes(change, material, self.encoder)


def some(bank: ImageBank) -> ImageBank:
    """`CHARACTERS` classes of a bank, evenly spread, or all if it has no more."""
    return bank.subset(torch.linspace(0, bank.num_classes - 1, min(CHARACTERS, bank.num_classes)).round().long())


def percent(errors: np.ndarray, sign: str = "") -> str:
    return f"{100 * errors.mean():{sign}.2f} ± {100 * interval(errors):.2f}"


def rows(name: str, way: int, validation: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """A row for the encoder alone and one for each arm, at the weight that is best on validation episodes."""
    weighted = next(arm for arm, errors in test.items() if len(errors) == len(WEIGHTS))
    plain, before = test[weighted][0], validation[weighted][0]  # at weight 0
    head = {"encoder": name, "episodes": f"{way}-way 1-shot"}
    made = [
        {
            **head,
            "added": "nothing",
            "weight": "–",
            "validation error, %": percent(before),
            "test error, %": percent(plain),
            "less the encoder's": "–",
        }
    ]
    for arm, errors in test.items():
        best = int(validation[arm].mean(1).argmin())
        grid = WEIGHTS if len(errors) == len(WEIGHTS) else SHARES
        made.append(
            {
                **head,
                "added": arm,
                "weight": f"{grid[best]:g}" if len(errors) > 1 else "–",
                "validation error, %": percent(validation[arm][best]),
                "test error, %": percent(errors[best]),
                "less the encoder's": percent(errors[best] - plain, "+"),
            }
        )
    return made


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vae", default="generator-omniglot")
    parser.add_argument("--encoder", nargs="+", default=["generator-omniglot", "warp-protonet-omniglot"])
    parser.add_argument("--ways", type=int, nargs="+", default=[20, 5])
    parser.add_argument("--episodes", type=int, nargs=2, default=[60, 120], help="for the choice, and of the test")
    parser.add_argument("--data", default="omniglot")
    parser.add_argument("--json", default="experiments/results/synthesis.json")
    chosen = parser.parse_args(arguments)
    data = make_dataset(chosen.data)
    vae = zoo.open(chosen.vae).vae().eval()
    hands, banks = Hands(vae, data.load("train")), {split: some(data.load(split)) for split in ("validation", "test")}
    about = (
        f"Upright characters, {CHARACTERS} of each split; {chosen.episodes[0]} episodes to choose the weight and "
        f"{chosen.episodes[1]} of the test, {QUERIES} queries a class, seed 0; error in %, ± the 95 % interval over "
        f"episodes, differences on the same episodes. The decoder is {chosen.vae}'s."
    )
    made, table = provenance(), list[dict[str, str]]()  # before the first file is written
    for name in chosen.encoder:
        comparison = Comparison(vae, zoo.open(name).encoder(None).eval(), hands, banks)
        for way in chosen.ways:
            measured = [
                comparison.errors(split, way, count) for split, count in zip(banks, chosen.episodes, strict=True)
            ]
            table += rows(name, way, *measured)
            print(*table[-7:], sep="\n", flush=True)
            write_json(Path(chosen.json), {"provenance": made, "about": about, "rows": table})


if __name__ == "__main__":
    main()
