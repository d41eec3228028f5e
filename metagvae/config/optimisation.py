"""The sections of a config that say how a run is optimised and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from episodes import InputError
from episodes.counter_rng import check_seed
from episodes.paths import expanded

MOST_STEPS = 10**12
LARGEST = 1e30


@dataclass
class OptimSection:
    """The optimiser, Adam (AdamW's decoupled decay), and its schedule.

    Args:
        steps: optimiser steps.
        lr: learning rate at the start.
        weight_decay: decoupled weight decay.
        betas: decays of Adam's two averages.
        schedule: cosine (to zero) | halving (every halve_every steps) | constant.
        halve_every: steps between halvings.
        clip: largest norm of the gradient; 0 for none.
        average: what is kept (and validated) is a mean of the weights that training passes through: an exponential one
            whose past counts so much at each step, such as 0.999; 1 for the plain mean of all; 0 for the last weights.
        average_from: share of the steps that are left out of the mean.
        skip_nonfinite: steps whose loss or gradient is not finite that are left out; one more stops the run.
        precision: auto | float32 | tf32 (products rounded as NVIDIA's GPUs do) | bfloat16; auto takes bfloat16 where
            the processor computes in it and it measures no slower, but float32 for maml, whose outer gradient
            bfloat16 spoils.
        compile: run the backbone through torch.compile in training. Off by default: on two processor cores a compiled
            Conv-4 step took 1.4 times as long, after 10 to 30 seconds of compiling.
        graph: auto | on | off: capture a whole step, compiled or not, in a CUDA graph and replay it, which spares the
            host some hundred launches a step. auto does so on a GPU, in one process, where a step can be captured.

    Example:
        >>> from metagvae.config import OptimSection
        >>> section = OptimSection(steps=2000, lr=0.001, schedule="cosine", precision="float32")
    """

    steps: int = 2000
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    schedule: str = "cosine"
    halve_every: int = 2000
    clip: float = 0.0
    average: float = 0.0
    average_from: float = 0.0
    skip_nonfinite: int = 0
    precision: str = "auto"
    compile: bool = False
    graph: str | bool = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.graph, bool):  # YAML reads on and off so
            self.graph = "on" if self.graph else "off"
        if self.graph not in ("auto", "on", "off"):
            raise InputError(f"optim.graph must be 'auto', 'on' or 'off'; received {self.graph!r}.")
        if self.schedule not in ("cosine", "halving", "constant"):
            raise InputError(f"optim.schedule must be 'cosine', 'halving' or 'constant'; received {self.schedule!r}.")
        if self.precision not in ("auto", "float32", "tf32", "bfloat16"):
            raise InputError(
                f"optim.precision must be 'auto', 'float32', 'tf32' or 'bfloat16'; received {self.precision!r}."
            )
        if self.skip_nonfinite < 0:
            raise InputError(f"optim.skip_nonfinite must be at least 0; received {self.skip_nonfinite}.")
        if not 1 <= self.steps < MOST_STEPS or self.halve_every < 1:
            raise InputError(
                f"optim needs steps from 1 to {MOST_STEPS:,} and halve_every >= 1; received {self.steps} and "
                f"{self.halve_every}."
            )
        # float32 holds what Adam makes of these: rates divided by a tenth, times the decay
        if not (0 < self.lr <= LARGEST and self.weight_decay >= 0 and self.lr * self.weight_decay <= LARGEST):
            raise InputError(
                f"optim needs lr > 0, weight_decay >= 0, and at most {LARGEST:g} for lr and for the product of both; "
                f"received {self.lr} and {self.weight_decay}."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optim.betas must be two numbers in [0, 1); received {self.betas}.")
        if not (0 <= self.average <= 1 and 0 <= self.average_from < 1):
            raise InputError(
                "optim.average must be in [0, 1] and optim.average_from in [0, 1); received "
                f"{self.average} and {self.average_from}."
            )
        if not self.clip >= 0:
            raise InputError(f"optim.clip must be at least 0; received {self.clip}.")


@dataclass
class RunSection:
    """The run folder and how often it is written.

    Args:
        folder: where everything goes; must be new or empty unless resume is set.
        resume: true goes on from the folder's last state | auto does so if there is a run and starts one if not.
        seed: of weights, batches and noise.
        device: auto | cpu | cuda | cuda:0 ...
        log_every: steps between lines in metrics.jsonl.
        save_every: steps between states on disk.
        stop_after: stop (resumably) once this many steps are done; null for never.
        deterministic: on a GPU, take only kernels that give the same bits each time, so that a resumed run ends
            bit-identical there too; slower, and an error where torch has no such kernel.
        wandb: project at wandb that gets the metrics and the config too; null for none.

    Example:
        >>> from metagvae.config import RunSection
        >>> section = RunSection("runs/protonet", resume="auto", seed=1)
    """

    folder: str = "runs/unnamed"
    resume: bool | Literal["auto"] = False
    seed: int = 0
    device: str = "auto"
    log_every: int = 50
    save_every: int = 500
    stop_after: int | None = None
    deterministic: bool = False
    wandb: str | None = None

    def __post_init__(self) -> None:
        self.folder = str(expanded(self.folder))
        if self.log_every < 1 or self.save_every < 1:
            raise InputError(
                f"run.log_every and run.save_every must be at least 1; received {self.log_every} and {self.save_every}."
            )
        if self.stop_after is not None and self.stop_after < 1:
            raise InputError(f"run.stop_after must be at least 1, or null for never; received {self.stop_after}.")
        check_seed(self.seed, "run.seed")
