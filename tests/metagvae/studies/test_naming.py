"""Names of methods, and seeds that are of different recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from metagvae import zoo
from metagvae.config.episodes import ValidationSection
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import LearnerSection
from metagvae.studies.naming import short_names, unlike_seeds
from tests.support.trainings import do_train, train_config


def test_methods_of_other_folders_that_are_called_alike_keep_their_folders() -> None:
    """Else new/f-seed0 and old/f-seed1 would count as two seeds of one method."""
    asked = ["new/f-seed0", "old/f-seed0", "old/f-seed1", "old/g-seed0", "pixels"]
    short = short_names(asked)
    assert [short[name] for name in asked] == ["new/f-seed0", "old/f-seed0", "old/f-seed1", "g-seed0", "pixels"]
    spelt = ["a-seed0", "./a-seed1", str(Path("a-seed2").resolve())]  # one folder, so seeds of one method
    assert list(short_names(spelt).values()) == ["a-seed0", "a-seed1", "a-seed2"]
    assert short_names(["a/x+b/y", "a/x"]) == {"a/x+b/y": "x+y", "a/x": "x"}


def test_seeds_of_unlike_recipes_are_said_to_be(tmp_path: Path) -> None:
    plain = train_config(tmp_path / "net-seed0", 2, validation=ValidationSection(every=0))
    angles = LearnerSection("prototypes", {"distance": "cosine"})
    for seed, config in enumerate([plain, plain, replace(plain, learner=angles, optim=OptimSection(steps=3))]):
        folder = str(tmp_path / f"net-seed{seed}")
        do_train(replace(config, run=replace(plain.run, folder=folder, seed=seed)))
    runs = {f"net-seed{seed}": zoo.open(str(tmp_path / f"net-seed{seed}")) for seed in range(3)}
    (note,) = unlike_seeds(runs)
    assert note.startswith("net: net-seed0 and net-seed2 differ in learner.options, optim.steps, and count as seeds")
    assert not unlike_seeds({"net-seed0": runs["net-seed0"], "other-seed2": runs["net-seed2"], "x": runs["net-seed1"]})
