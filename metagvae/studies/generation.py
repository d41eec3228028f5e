"""The work of `metagvae generate`: what a VAE draws, starting from its prior or from images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import check_seed, seed_for
from episodes.datasets import Dataset
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.synthesis import Drawn, Synthesis, unit_names

KINDS = ("samples", "traversals", "interpolations", "exchange", "attribute")
MOST = 100_000  # samples: their latents and images are held at once
# options that only some kinds of drawings use
USED_BY = {
    "count": KINDS[:1],
    "start": KINDS[1:],
    "units": ("traversals",),
    "keep": ("exchange",),
    "attribute": ("attribute",),
}
ROWS, COLUMNS, REACH = 8, 9, 2.0
CODED = 2_000  # training images that give an attribute's codes


@dataclass(frozen=True)
class Drawing:
    """Images to draw, and where their latents come from.

    Args:
        draw: what to draw, some of samples, traversals, interpolations, exchange (a row keeps the units of --keep, a
            column gives the others) and attribute; leave out for samples and traversals.
        count: samples.
        start: prior | data; where the latents of all but the samples come from: draws, or images of the data set.
        units: names or numbers of the units to traverse, such as rotation; leave out for all guided ones.
        keep: groups of units that a row of exchange keeps; leave out for content.
        attribute: group of units that --draw attribute sets to each of its values.
        split: test | validation | train; of --start data.
        temperature: divides the logits before the sigmoid; below 1 draws harder edges.
        seed: of the draws; the same seed gives the same files.

    Raises:
        InputError: if a name or a number is out of its range, or an option is one that no drawing asked for uses.
    """

    draw: list[str] | None = None
    count: int = 100
    start: str = "prior"
    units: list[str] | None = None
    keep: list[str] | None = None
    attribute: str | None = None
    split: str = "test"
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise InputError(f"--draw takes some of {', '.join(KINDS)}; received {' '.join(self.kinds)}.")
        if not 1 <= self.count <= MOST:
            raise InputError(f"--count must be between 1 and {MOST:,}; received {self.count}.")
        if self.start not in ("prior", "data"):
            raise InputError(f"--start must be 'prior' or 'data'; received {self.start!r}.")
        check_seed(self.seed, "--seed")
        self._check_used()

    def _check_used(self) -> None:
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        for name in given:
            kinds = USED_BY.get(name, KINDS)
            if not set(kinds) & set(self.kinds):
                raise InputError(
                    f"--{name} goes with --draw {' or '.join(kinds)}; received --draw {' '.join(self.kinds)}."
                )
        if "split" in given and self.start != "data":
            raise InputError("--split goes with --start data: it names the images that drawings start from.")

    @property
    def kinds(self) -> list[str]:
        """Kinds of drawings, each once."""
        return list(dict.fromkeys(self.draw or ["samples", "traversals"]))

    @property
    def needs_data(self) -> bool:
        """Whether images of the data set are asked for."""
        return self.start == "data" or "attribute" in self.kinds


class Generation:
    """Drawings of one VAE by kind.

    Args:
        vae: in evaluation mode.
        drawing: what to draw.
        dataset: where the starting images and an attribute's images are; None where none are needed.
    """

    def __init__(self, vae: GuidedVAE, drawing: Drawing, dataset: Dataset | None = None) -> None:
        self.vae, self.drawing, self.dataset = vae, drawing, dataset
        self.synthesis = Synthesis(vae, drawing.temperature, drawing.seed)
        self._makers: dict[str, Callable[[], Drawn]] = {
            "samples": lambda: self.synthesis.samples(drawing.count),
            "traversals": self._traversals,
            "interpolations": self._interpolations,
            "exchange": self._exchange,
            "attribute": self._attribute,
        }

    def draw(self, kind: str) -> Drawn:
        """The drawing of one of `KINDS`; see `Synthesis`."""
        return self._makers[kind]()

    @property
    def values(self) -> tuple[float, ...]:
        """Values of a traversal: standard deviations of the prior, less where it ends before."""
        reach = min(REACH, self.vae.prior.reach)
        return tuple(torch.linspace(-reach, reach, COLUMNS).tolist())

    @torch.no_grad()
    def starts(self, count: int) -> Tensor:
        """``[count, latent]``: draws from the prior, or posterior means of images of as many classes."""
        if self.drawing.start == "prior":
            return self.synthesis.prior(count)
        images = _one_of_each(self._bank(self.drawing.split), count, self.drawing.seed)
        return self.vae.infer(to_float(images).to(self.synthesis.device)).mean

    def _bank(self, split: str) -> ImageBank:
        if self.dataset is None:
            raise InputError("drawing from images needs a data set; leave out --start data, or give --data.")
        bank = self.dataset.load(split)
        config = self.vae.encoder.config
        if bank.image_shape != (config.channels, config.size, config.size):
            raise InputError(
                f"this VAE takes images {[config.channels, config.size, config.size]}; {bank.dataset} has "
                f"{list(bank.image_shape)}. Choose another --data."
            )
        return bank

    def _traversals(self) -> Drawn:
        return self.synthesis.traversals(self.starts(1)[0], self._chosen(), self.values)

    def _chosen(self) -> list[int]:
        """Units by the names asked for; without any, those with a name of their own, or the first dozen."""
        names = unit_names(self.vae)
        if self.drawing.units:
            return [self._unit(word, names) for word in self.drawing.units]
        groups = self.vae.encoder.units
        guided = [unit for group, units in groups.items() if group != "content" for unit in units]
        return (guided or list(range(len(names))))[:12]

    def _unit(self, word: str, names: dict[int, str]) -> int:
        found = [unit for unit, name in names.items() if word in (name, name.split(": ")[-1], str(unit))]
        if len(found) != 1:
            raise InputError(
                f"--units takes numbers or names of single units; received {word!r}. The names are "
                f"{', '.join(sorted({name.split(': ')[-1] for name in names.values()}))[:400]}."
            )
        return found[0]

    def _interpolations(self) -> Drawn:
        ends = self.starts(2 * ROWS)
        return self.synthesis.interpolations(ends[:ROWS], ends[ROWS:], COLUMNS)

    def _exchange(self) -> Drawn:
        latents = self.starts(ROWS + COLUMNS)
        return self.synthesis.exchange(latents[:ROWS], latents[ROWS:], self.drawing.keep or ["content"])

    def _attribute(self) -> Drawn:
        name = self.drawing.attribute
        if name is None:
            raise InputError("--draw attribute needs --attribute NAME, one that the run was guided by.")
        bank = self._bank("train")
        return self.synthesis.setting(self.starts(COLUMNS), name, attribute_codes(self.synthesis, bank, name))


def attribute_codes(synthesis: Synthesis, bank: ImageBank, name: str, count: int = CODED) -> dict[str, Tensor]:
    """Codes of an attribute's values (`Synthesis.codes`), from ``count`` training images spread over the bank.

    Raises:
        InputError: if the images do not have that attribute.
    """
    if name == "class":
        values, names = torch.arange(bank.num_classes), bank.class_names
    elif name in bank.attributes:
        values, names = bank.attributes[name].values, bank.attributes[name].names
    else:
        raise InputError(
            f"{bank.dataset} has no attribute {name!r}; it has {', '.join(['class', *bank.attributes])}. Choose one "
            "that the run was guided by."
        )
    rows = torch.linspace(0, len(bank) - 1, min(count, len(bank))).long()
    images = to_float(bank.images[rows]).to(synthesis.device)
    labels = values.cpu()[bank.labels.cpu()[rows]].to(synthesis.device)
    return synthesis.codes(images, labels, names, name)


def _one_of_each(bank: ImageBank, count: int, seed: int) -> Tensor:
    """uint8 ``[count, C, H, W]``: an image of each of as many classes, over again where there are fewer."""
    generator = torch.Generator().manual_seed(seed_for(seed, 4))
    order = torch.randperm(bank.num_classes, generator=generator)
    classes = order.repeat(-(-count // len(order)))[:count]
    sizes = (bank.offsets[1:] - bank.offsets[:-1]).cpu()[classes]
    place = (torch.rand(count, generator=generator) * sizes).long()
    return torch.as_tensor(bank.images[bank.offsets.cpu()[classes] + place])
