"""Tables of `metagvae control`: units, identity and attributes of several VAEs on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from episodes import ImageBank, InputError
from episodes.datasets import Dataset
from metagvae import zoo
from metagvae.evaluation.lenet import LENET, LeNet, class_features
from metagvae.evaluation.pose import UNITS
from metagvae.evaluation.text_table import text_table
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.attribute_control import AttributeControl, control_of_attributes
from metagvae.studies.control import UnitControl, control_of_units, named_units, pose_spread, spread_images
from metagvae.studies.identity import Features, Identity, Trial, identity_kept
from metagvae.studies.naming import short_names
from metagvae.zoo.build import check_pictures
from metagvae.zoo.trained import Trained


@dataclass
class ControlTable:
    """All that was measured, by the name of the VAE."""

    units: dict[str, list[UnitControl]] = field(default_factory=dict)
    identity: dict[str, Identity] = field(default_factory=dict)
    attributes: dict[str, list[AttributeControl]] = field(default_factory=dict)
    about: str = ""

    def groups(self) -> dict[str, list[dict[str, str]]]:
        """Rows of text of each table, a table's cells by column; empty tables are left out."""
        tables = {
            "units": [_unit(name, row) for name, rows in self.units.items() for row in rows],
            "identity": [row for name, found in self.identity.items() for row in _identity(name, found)],
            "attributes": [_attribute(name, row) for name, rows in self.attributes.items() for row in rows],
        }
        return {name: rows for name, rows in tables.items() if rows}

    def text(self) -> str:
        """Plain text, the tables below each other."""
        tables = self.groups().values()
        return "\n\n".join(text_table([list(rows[0]), *(list(row.values()) for row in rows)]) for rows in tables)

    def save(self, path: Path) -> None:
        """JSON with the tables' rows, every number, and the command and commit that made them."""
        numbers = {
            "units": {name: [asdict(row) for row in rows] for name, rows in self.units.items()},
            "identity": {name: asdict(found) for name, found in self.identity.items()},
            "attributes": {name: [asdict(row) for row in rows] for name, rows in self.attributes.items()},
        }
        write_json(path, {"provenance": provenance(), "about": self.about, "groups": self.groups(), "numbers": numbers})


def measure_control(runs: Sequence[Trained], count: int, trial: Trial, root: str | None) -> ControlTable:
    """Units and identity of every VAE with named pose, the best units of those without, and guided attributes.

    Args:
        count: test images.
        trial: how identity is judged.
        root: where the runs' images are; None looks in the usual places.

    Raises:
        InputError: if a run has no VAE or is of other images than the first, or the judge takes others.
    """
    found = ControlTable()
    judges: dict[str, LeNet] = {}  # of attributes, by the training images' fingerprint
    short = short_names([str(trained.name) for trained in runs])
    banks = [trained.dataset(root=root).load("test") for trained in runs]
    for trained, bank in zip(runs, banks, strict=True):
        if bank.pixels != banks[0].pixels:
            raise InputError(
                f"control puts VAEs beside each other on the same test images; {runs[0].name} is of {banks[0].dataset} "
                f"and {trained.name} of {bank.dataset}. Measure them one at a time."
            )
    for trained, bank in zip(runs, banks, strict=True):
        vae, name = trained.vae(), short[str(trained.name)]
        check_pictures(vae.encoder, bank, trained.name)
        guided = [group for group in vae.encoder.units if group in bank.attributes]
        if guided:
            train = trained.dataset(root=root).load("train")
            judge = judges.get(train.fingerprint)
            found.attributes[name], judges[train.fingerprint] = control_of_attributes(
                vae, train, bank, count, trial, judge
            )
            continue
        found.units[name] = control_of_units(vae, spread_images(bank, count), pose_spread(bank, trial.seed))
        if named_units(vae):
            features = _judge(trial, bank, trained.dataset(root=root))
            found.identity[name] = identity_kept(vae, bank, features, named_units(vae), trial)
    found.about = (
        f"{min(count, len(banks[0]))} test images of {banks[0].dataset}; each unit takes 9 values from -2 to 2 "
        "standard deviations of the prior, and moments of the drawn images say the pose. The share of another pose is "
        "its movement over that of the pose named, both in deviations among drawings of one class. A VAE without named "
        "units: for each pose the unit that moves it best." + _how(trial)
    )
    return found


def _how(trial: Trial) -> str:
    """A sentence on how images were drawn for the judge, where that is not the usual way."""
    return f" Identity and attributes: drawn at temperature {trial.temperature:g}." if trial.temperature != 1 else ""


def _judge(trial: Trial, bank: ImageBank, dataset: Dataset) -> Features:
    """The features that say which class an image is of: of a frozen encoder, or of a LeNet trained for the purpose."""
    if trial.judge == LENET:
        return class_features(dataset.load("train"), trial.seed)
    encoder = zoo.open(trial.judge).encoder()
    config = encoder.config
    if bank.image_shape != (config.channels, config.size, config.size):
        raise InputError(
            f"the judge {trial.judge} takes images {[config.channels, config.size, config.size]}; {bank.dataset} has "
            f"{list(bank.image_shape)}. Choose another --judge."
        )
    return encoder


def _unit(name: str, row: UnitControl) -> dict[str, str]:
    other, share = row.worst
    return {
        "VAE": name,
        "pose": row.pose,
        "unit": str(row.unit),
        "rank correlation": f"{row.rank:.3f}",
        "linearity, R²": f"{row.linearity:.3f}",
        "pose at -2 and 2": f"{row.low:+.1f}, {row.high:+.1f} {UNITS[row.pose]}",
        "other pose that moves most": f"{other}, {100 * share:.1f} %",
    }


def _identity(name: str, found: Identity) -> list[dict[str, str]]:
    cells = {
        "none moved": (found.unmoved, found.real),
        **{word: (share, found.alike.get(word)) for word, share in found.moved.items()},
    }
    return [
        {
            "VAE": name,
            "unit at -2 and 2": word,
            f"rebuilt: nearest to its own class among {found.way}, %": _percent(share),
            "the real image moved alike, %": _percent(ceiling),
            "judge": found.judge,
        }
        for word, (share, ceiling) in cells.items()
    ]


def _percent(share: tuple[float, float] | None) -> str:
    return "–" if share is None else f"{100 * share[0]:.1f} ± {100 * share[1]:.1f}"


def _attribute(name: str, row: AttributeControl) -> dict[str, str]:
    changes = ", ".join(f"{other} {100 * share:.1f}" for other, share in row.changes.items())
    return {
        "VAE": name,
        "attribute set": f"{row.attribute} ({row.values} values)",
        "classifier agrees, %": f"{100 * row.agrees:.1f}",
        "others change, %": changes,
        "adversary on the other units' means, %": f"{100 * row.leak:.1f}",
        "on their draws, %": f"{100 * row.leak_of_draws:.1f}",
        "chance, %": f"{100 * row.chance:.1f}",
        "classifier on real images, %": f"{100 * row.seen:.1f}",
        "on rebuilt ones, %": f"{100 * row.rebuilt:.1f}",
    }
