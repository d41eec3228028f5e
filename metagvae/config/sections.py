"""Configuration: one dataclass per section of a YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from episodes import AugmentConfig, InputError
from episodes.datasets import Dataset, make_dataset
from metagvae.config.adversary import AdversarySection
from metagvae.config.dictionary import DictionarySection
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.teacher import TeacherSection


@dataclass
class DataConfig:
    """Where images come from.

    Args:
        name: a registered data set; `metagvae data list` names them.
        root: folder or file of the images; null looks under METAGVAE_DATA, then under ./data.
        size: side of the square images in pixels; null takes the data set's usual one.
        rotations: none | classes (rotations by 90 degrees as classes of their own) | episode (one rotation per sampled
            class).
        options: further options of that data set, such as splits for omniglot or fractions for folder.

    Example:
        >>> from metagvae.config import DataConfig
        >>> DataConfig("digits", size=16).make().side
        16
    """

    name: str = "glyphs"
    root: str | None = None
    size: int | None = None
    rotations: str = "none"
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Dataset:
        """The data set; raises `InputError` for an unknown name or option."""
        return make_dataset(self.name, self.options, root=self.root, size=self.size, rotations=self.rotations)


@dataclass
class EncoderSection:
    """The encoder: a new one, or one trained before, which keeps its own settings but for ``features``.

    Setting any other field to a value that differs from the trained encoder's is an error; it is never ignored.

    Args:
        source: null for a new encoder; else a run folder, an encoder folder or a shipped name.
        backbone: conv4 | conv4_doubling | conv4_places | resnet12 | ding | patches | infogan; text of texts.
        width: feature maps of the first block.
        latent: units of the latent.
        norm: policy of normalisation: running | group | support | transductive.
        mean: subtracted from the images, which are in [0, 1].
        std: divides the images after that.
        features: what learners see: latent, backbone, or groups such as content; several are put side by side.

    Example:
        >>> from metagvae.config import EncoderSection
        >>> section = EncoderSection(backbone="conv4", latent=32, norm="group")
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
        likelihood: bernoulli | gaussian | logistic (of 8-bit images, discretised); of texts categorical.
        sigma: standard deviation of the Gaussian and scale of the logistic likelihood, images being in [0, 1].
        decoder: upsampling, residual, or ding, patches or infogan, which mirror the backbone of that name; of texts
            lstm.
        decoder_width: feature maps before the decoder's last layer.
        guidance: a list of guidances, each a mapping of its name and options; empty for a plain VAE.
        prior: of the latent, a mapping of its name and options.
        inference: how images become a posterior, a mapping of its name and options.
        free_bits: nats per unit that the KL term does not count.

    Example:
        >>> from metagvae.config import VAESection
        >>> section = VAESection(beta=2.0, guidance=[{"name": "deformable_pca", "transforms": ["rotation"]}])
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
    free_bits: float = 0.0


@dataclass
class LearnerSection:
    """The few-shot learner.

    Args:
        name: prototypes | ridge | maml | anil | statistician.
        options: of that learner, such as distance: cosine for prototypes.

    Example:
        >>> from metagvae.config import LearnerSection
        >>> section = LearnerSection("prototypes", {"distance": "cosine"})
    """

    name: str = "prototypes"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PretrainConfig:
    """Pretraining of a guided VAE, a sparse encoder or InfoGAN on the training classes of a data set.

    Args:
        data: the images.
        augment: random changes of each image.
        encoder: the encoder; its source must be null.
        vae: the autoencoder and its guidance.
        batch: images per step.
        views: warps of each image per step, drawn by augment, for guidances that compare them.
        optim: the optimiser.
        run: the run folder.
        dictionary: for a sparse encoder instead.
        adversary: for InfoGAN instead: encoder and decoder learn from a critic.

    Example:
        >>> from metagvae.config import DataConfig, OptimSection, PretrainConfig, RunSection
        >>> config = PretrainConfig(DataConfig("glyphs"), optim=OptimSection(steps=600), run=RunSection("runs/vae"))
    """

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: EncoderSection = field(default_factory=EncoderSection)
    vae: VAESection = field(default_factory=VAESection)
    batch: int = 128
    views: int = 1
    optim: OptimSection = field(default_factory=OptimSection)
    run: RunSection = field(default_factory=RunSection)
    dictionary: DictionarySection | None = None
    adversary: AdversarySection | None = None


@dataclass
class TrainConfig:
    """Training of a few-shot learner on episodes of the training classes.

    Args:
        data: the images.
        augment: random changes of each image.
        encoder: new, or a source trained before.
        mode: finetune (the encoder learns from episodes) | frozen (only the learner's own weights do) |
            guided (the encoder learns, the VAE's and the guidance's losses kept on).
        vae: for mode guided with a new encoder; a pretrained run brings its own.
        vae_weight: multiplies the VAE's and the guidance's losses in mode guided.
        vae_share: share of an episode's classes whose images those losses see; less is faster.
        views: with labels and a guidance that compares warps: those losses see each support image under so many
            fresh warps, and the queries not at all.
        learner: the few-shot learner.
        episodes: the shape of training episodes.
        validation: how the best state is chosen.
        optim: the optimiser.
        run: the run folder.
        teacher: trained runs that the learner is taught by; null for none.

    Example:
        >>> from metagvae.config import EncoderSection, TrainConfig
        >>> config = TrainConfig(encoder=EncoderSection(source="guided-vae-omniglot"), mode="guided")
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
    teacher: TeacherSection | None = None

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
