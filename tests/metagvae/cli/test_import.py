"""A user's own data set, guidance and learner at the command line, by --import."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from episodes import InputError
from episodes.datasets import DATASETS
from episodes.registry import Registry
from metagvae.guidance import GUIDANCES
from metagvae.learners import LEARNERS
from metagvae.vae.inference import INFERENCES
from metagvae.vae.priors import PRIORS
from tests.support.fresh import python

MODULE = """
from dataclasses import dataclass

import torch
from torch import Tensor

from episodes import ImageBank
from episodes.datasets import DATASETS, Dataset
from metagvae.guidance import GUIDANCES, Guidance
from metagvae.learners import LEARNERS, PrototypicalNetwork


@DATASETS.register
@dataclass(frozen=True)
class Noise(Dataset):
    name = "noise"
    default_size = 16
    classes: int = 6

    def load_split(self, split: str) -> ImageBank:
        generator = torch.Generator().manual_seed(len(split))
        parts = [(f"{split}{i}", torch.randint(0, 256, (8, 1, 16, 16), generator=generator, dtype=torch.uint8))
                 for i in range(self.classes)]
        return ImageBank.from_classes(parts, dataset="noise", split=split, polarity="ink")


@GUIDANCES.register
class Small(Guidance):
    name = "small"

    def __init__(self, context, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @classmethod
    def owned_units(cls, **options):
        return {}

    def forward(self, inputs) -> dict[str, Tensor]:
        return {"size": self.weight * inputs.posterior.mean.square().sum(-1).mean()}


@LEARNERS.register
class Doubled(PrototypicalNetwork):
    name = "doubled"

    def ask_head(self, state, query):
        return 2 * super().ask_head(state, query)
"""


def metagvae(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "metagvae", *arguments, cwd=folder)


def test_a_module_of_the_users_own_takes_part(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    data = ["--data.name", "noise", "--encoder.width", "8", "--encoder.latent", "6", "--run.device", "cpu"]
    steps = ["--optim.steps", "2", "--optim.precision", "float32"]
    done = metagvae(
        tmp_path, "pretrain", "--import", "mine", *data, *steps, "--batch", "8", "--vae.guidance",
        '[{"name": "small", "weight": 2.0}]', "--run.folder", "vae",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"small/size"' in (tmp_path / "vae" / "metrics.jsonl").read_text()
    shape = ["--episodes.way", "3", "--episodes.query", "2", "--validation.every", "0"]
    done = metagvae(
        tmp_path, "--import=mine", "train", *data[:2], *data[-2:], *steps, *shape, "--learner.name", "doubled",
        "--encoder.source", "vae", "--run.folder", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measure = ["evaluate", "--run", "run", "--way", "3", "--query", "2", "--episodes", "10"]
    done = metagvae(tmp_path, *measure, "--import", "mine")
    assert done.returncode == 0, done.stderr
    assert "noise test" in done.stdout
    done = metagvae(tmp_path, *measure)  # without the module, one sentence
    assert done.returncode == 2
    assert "unknown" in done.stderr


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (None, "nowhere", "cannot be imported"),
        ("1/0", "broken", "ZeroDivisionError"),
        ("", "not-a-name", "takes the name of a Python module"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(tmp_path: Path, text: str | None, name: str, says: str) -> None:
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    done = metagvae(tmp_path, "data", "list", "--import", name)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "registry", [DATASETS, GUIDANCES, LEARNERS, PRIORS, INFERENCES], ids=lambda registry: registry.what
)
def test_an_unknown_name_is_the_same_error_everywhere(registry: Registry[object]) -> None:
    with pytest.raises(InputError, match=f"unknown {registry.what} 'nothing'; known: {sorted(registry)[0]}"):
        registry.checked("nothing", {})
    with pytest.raises(InputError, match="has no option 'wings'; allowed: "):
        registry.checked(sorted(registry)[0], {"wings": 2})


def test_two_classes_of_one_name_are_refused() -> None:
    registry: Registry[type] = Registry("thing")

    class One:
        name = "one"

    class Other:
        name = "one"

    registry.register(One)
    registry.register(One)
    with pytest.raises(InputError, match="two classes want to be the thing 'one'"):
        registry.register(Other)
