"""Configuration: one dataclass per section of a YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor

from episodes import (
    AugmentConfig,
    Episodes,
    EpisodeSampler,
    EpisodeShape,
    ImageBank,
    InputError,
    ViewSampler,
    Within,
    WithinSampler,
    picture_classes,
)
from episodes.counter_rng import check_seed
from episodes.datasets import Dataset, make_dataset
from episodes.paths import expanded

S = TypeVar("S")
MOST_STEPS = 10**12
LARGEST = 1e30


@dataclass
class DataConfig:
    """Where pictures come from.

    Args:
        name: a registered data set; `metagvae data list` names them.
        root: folder or file of the pictures; null looks under METAGVAE_DATA, then under ./data.
        size: side of the square pictures in pixels; null takes the data set's usual one.
        rotations: none | classes (quarter turns as classes of their own) | episode (one turn per sampled class).
        options: further options of that data set, such as splits for omniglot or fractions for folder.
    """

    name: str = "glyphs"
    root: str | None = None
    size: int | None = None
    rotations: str = "none"
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Dataset:
        """The data set; raises `InputError` for an unknown name or option."""
        return make_dataset(self.name, root=self.root, size=self.size, rotations=self.rotations, **self.options)


@dataclass
class EncoderSection:
    """The encoder: a new one, or one trained before, which keeps its own settings but for ``features``.

    Setting one of the others to what the trained encoder has not is an error, not a wish that is passed over.

    Args:
        source: null for a new encoder; else a run folder, an encoder folder or a shipped name.
        backbone: conv4 | conv4_doubling | resnet12 | ding.
        width: feature maps of the first block.
        latent: units of the latent.
        norm: policy of normalisation: running | group | support | transductive.
        mean: subtracted from the pictures, which are in [0, 1].
        std: divides the pictures after that.
        features: what learners see: latent, backbone, or groups such as content; several are put side by side.
    """

    source: str | None = None
    backbone: str = "conv4"
    width: int = 64
    latent: int = 64
    norm: str = "running"
    mean: float = 0.0
    std: float = 1.0
    features: list[str] | None = None


@dataclass
class VAESection:
    """The variational autoencoder around the encoder.

    Args:
        beta: weight of the KL term.
        warm_up: steps over which beta grows from zero, in pretraining.
        likelihood: bernoulli | gaussian.
        sigma: standard deviation of the Gaussian likelihood, pictures being in [0, 1].
        decoder: upsampling | residual | ding, which mirrors the backbone of that name.
        decoder_width: feature maps before the decoder's last layer.
        guidance: a list of guidances, each a mapping of its name and options; empty for a plain VAE.
        prior: of the latent, a mapping of its name and options.
        inference: how images become a posterior, a mapping of its name and options.
    """

    beta: float = 1.0
    warm_up: int = 0
    likelihood: str = "bernoulli"
    sigma: float = 0.2
    decoder: str = "upsampling"
    decoder_width: int = 32
    guidance: list[dict[str, Any]] = field(default_factory=list)
    prior: dict[str, Any] = field(default_factory=lambda: {"name": "standard_normal"})
    inference: dict[str, Any] = field(default_factory=lambda: {"name": "amortised"})


@dataclass
class OptimSection:
    """The optimiser, Adam (AdamW's decoupled decay), and its schedule.

    Args:
        steps: optimiser steps.
        lr: learning rate at the start.
        weight_decay: decoupled weight decay.
        schedule: cosine (to zero) | halving (every halve_every steps) | constant.
        halve_every: steps between halvings.
        clip: largest norm of the gradient; 0 for none.
        skip_nonfinite: steps whose loss or gradient is not finite that are left out; one more stops the run.
        precision: auto | float32 | tf32 (products rounded as NVIDIA's GPUs do) | bfloat16; auto takes bfloat16 where
            the processor computes in it and it measures no slower, but float32 for maml, whose outer gradient
            bfloat16 spoils.
        compile: run the backbone through torch.compile (with CUDA graphs on a GPU). Off by default: on two
            processor cores a compiled Conv-4 step took 1.4 times as long, after 10 to 30 seconds of compiling.
        graph: auto | on | off: capture a whole step in a CUDA graph and replay it, which spares the host some hundred
            launches a step. auto does so on a GPU, in one process, without compile, where a step can be captured.
    """

    steps: int = 2000
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    halve_every: int = 2000
    clip: float = 0.0
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


@dataclass
class EpisodeSection:
    """The shape of training episodes.

    Args:
        way: classes per episode.
        shot: support pictures per class.
        query: query pictures per class.
        tasks: episodes per optimiser step.
        classes: labels | pictures (no label is used: each class is one picture, under random changes of augment) |
            neighbours (each class is a picture and those that encoder.source takes for the same).
        neighbours: how many pictures at most are taken for the same, for classes: neighbours.
        within: which episodes have classes that share a value of an attribute; null for none. Needs labels.
    """

    way: int = 20
    shot: int = 1
    query: int = 5
    tasks: int = 1
    classes: str = "labels"
    neighbours: int = 3
    within: Within | None = None

    def __post_init__(self) -> None:
        if self.classes not in ("labels", "pictures", "neighbours"):
            raise InputError(
                f"episodes.classes must be 'labels', 'pictures' or 'neighbours'; received {self.classes!r}."
            )
        if self.within and not self.labelled:
            raise InputError("episodes.within needs episodes.classes 'labels': pictures alone have no attributes.")

    @property
    def labelled(self) -> bool:
        """Whether the pictures' own labels make the episodes."""
        return self.classes == "labels"

    @property
    def shape(self) -> EpisodeShape:
        """Ways, shots and queries."""
        return EpisodeShape(self.way, self.shot, self.query)

    def bank(self, bank: ImageBank) -> ImageBank:
        """The bank whose classes make the episodes; without labels, it has none."""
        return bank if self.labelled else picture_classes(bank)

    def sampler(
        self, bank: ImageBank, seed: int, stream: str, turns: bool, groups: Tensor | None = None
    ) -> EpisodeSampler:
        """The sampler of such episodes; ``groups`` as `ViewSampler` takes them."""
        drawn = Episodes(self.shape, seed, stream, turns, self.within)
        if self.within:
            return WithinSampler(bank, drawn)
        return EpisodeSampler(bank, drawn) if self.labelled else ViewSampler(bank, drawn, groups)


@dataclass
class ValidationSection:
    """How the best state is chosen, on validation classes.

    Args:
        every: steps between validations; 0 for none (the last state is then the best).
        way: classes per episode.
        shot: support pictures per class.
        query: query pictures per class.
        episodes: how many.
        within: as for training episodes.
    """

    every: int = 500
    way: int = 5
    shot: int = 1
    query: int = 15
    episodes: int = 300
    within: Within | None = None

    def __post_init__(self) -> None:
        if self.every < 0 or self.episodes < 2:
            raise InputError(
                "validation needs every >= 0 and, for its spread, episodes >= 2; received "
                f"{self.every} and {self.episodes}."
            )

    @property
    def shape(self) -> EpisodeShape:
        """Ways, shots and queries."""
        return EpisodeShape(self.way, self.shot, self.query)


@dataclass
class LearnerSection:
    """The few-shot learner.

    Args:
        name: prototypes | ridge | maml | anil | statistician.
        options: of that learner, such as distance: cosine for prototypes.
    """

    name: str = "prototypes"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PretrainConfig:
    """Pretraining of a guided VAE on the training classes of a data set.

    Args:
        data: the pictures.
        augment: random changes of each picture.
        encoder: the encoder; its source must be null.
        vae: the autoencoder and its guidance.
        batch: pictures per step.
        views: warps of each picture per step, drawn by augment, for guidances that compare them.
        optim: the optimiser.
        run: the run folder.
    """

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: EncoderSection = field(default_factory=EncoderSection)
    vae: VAESection = field(default_factory=VAESection)
    batch: int = 128
    views: int = 1
    optim: OptimSection = field(default_factory=OptimSection)
    run: RunSection = field(default_factory=RunSection)


@dataclass
class TrainConfig:
    """Training of a few-shot learner on episodes of the training classes.

    Args:
        data: the pictures.
        augment: random changes of each picture.
        encoder: new, or a source trained before.
        mode: finetune (the encoder learns from episodes) | frozen (only the learner's own weights do) |
            guided (the encoder learns, the VAE's and the guidance's losses kept on).
        vae: for mode guided with a new encoder; a pretrained run brings its own.
        vae_weight: multiplies the VAE's and the guidance's losses in mode guided.
        vae_share: share of an episode's classes whose pictures those losses see; less is faster.
        views: with labels and a guidance that compares warps: those losses see each support picture under so many
            fresh warps, and the queries not at all.
        learner: the few-shot learner.
        episodes: the shape of training episodes.
        validation: how the best state is chosen.
        optim: the optimiser.
        run: the run folder.
    """

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: EncoderSection = field(default_factory=EncoderSection)
    mode: str = "finetune"
    vae: VAESection = field(default_factory=VAESection)
    vae_weight: float = 0.01
    vae_share: float = 1.0
    views: int = 1
    learner: LearnerSection = field(default_factory=LearnerSection)
    episodes: EpisodeSection = field(default_factory=EpisodeSection)
    validation: ValidationSection = field(default_factory=ValidationSection)
    optim: OptimSection = field(default_factory=OptimSection)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if self.mode not in ("finetune", "frozen", "guided"):
            raise InputError(f"mode must be 'finetune', 'frozen' or 'guided'; received {self.mode!r}.")
        if not 0 < self.vae_share <= 1 or self.views < 1:
            raise InputError(
                f"vae_share must be in (0, 1] and views at least 1; received {self.vae_share} and {self.views}."
            )
        if self.vae_weight < 0:
            raise InputError(f"vae_weight must be at least 0; received {self.vae_weight}.")
        if self.views > 1 and not (self.mode == "guided" and self.episodes.labelled):
            raise InputError(
                "views are for mode 'guided' with episodes.classes 'labels' (without labels the pictures of a class "
                f"are warps of one already); received views {self.views}, mode '{self.mode}' and episodes.classes "
                f"'{self.episodes.classes}'. Leave views out."
            )
        if self.encoder.source is None and (self.mode == "frozen" or self.episodes.classes == "neighbours"):
            asks = "mode 'frozen'" if self.mode == "frozen" else "episodes.classes 'neighbours'"
            raise InputError(f"{asks} needs a trained encoder; set encoder.source, or choose another.")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain containers, for YAML and JSON."""
    return asdict(config)
