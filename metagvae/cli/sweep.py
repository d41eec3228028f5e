"""`metagvae sweep`: settings of a training config, searched on the validation split."""

from __future__ import annotations

from typing import Any

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.arguments import config_in
from metagvae.cli.outputs import say
from metagvae.config.sections import PretrainConfig, TrainConfig
from metagvae.studies.sweep.search_space import SweepConfig


def sweep(config: SweepConfig) -> None:
    """Search settings of train or pretrain on the validation split, with optuna."""
    from metagvae.report import figures
    from metagvae.runs.signals import Interrupted
    from metagvae.studies.sweep import trials as sweeping

    if not config.base or not expanded(config.base).is_file():
        raise InputError(
            f"a sweep needs base, the YAML file of the {config.command} that it starts from; received {config.base!r}."
        )
    classes: dict[str, type] = {"train": TrainConfig, "pretrain": PretrainConfig}
    base: Any = config_in(config.base, classes[config.command], f"The base of a sweep of {config.command}.")

    def tell(trial: Any) -> None:
        error = f"{100 * trial.error:.2f} ± {100 * trial.half_width:.2f} %" if trial.error is not None else trial.state
        values = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                           for key, value in trial.values.items())  # fmt: skip
        say(f"trial {trial.number}: {error} ({values}) {trial.problem}".rstrip(), flush=True)

    try:
        found = sweeping.run_sweep(base, config, tell)
    except Interrupted as stop:
        raise Interrupted(
            f"the sweep was stopped; the same command goes on with it and its unfinished trial ({stop})"
        ) from stop
    figures.sweep(found, found.folder / "trials.png")
    what = "few-shot error" if config.judge == "labels" else "error on warped single images"
    say(f"\n{what} on the validation split, {config.episodes} episodes, ± the 95 % interval over them\n")
    say(found.table())
    if found.best is None:
        say("\nno trial was completed")
        return
    say(f"\n{found.about()}")
    say(f"\nthe best, trial {found.best.number}, is in {found.folder / found.best.folder}; train it again: "
          f"metagvae {config.command} --config {found.folder / 'best.yaml'}")  # fmt: skip
