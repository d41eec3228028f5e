"""The work of `metagvae select`: the best of several runs, chosen without a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from episodes import AugmentConfig, ImageBank, InputError, to_float, warp
from episodes.counter_rng import check_seed
from episodes.paths import all_different
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.encoders.norm import full_precision
from metagvae.evaluation.centrality import Agreement, above_chance, held_out_accuracy, least_varying
from metagvae.evaluation.text_table import text_table
from metagvae.evaluation.udr import udr
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.studies.naming import short_names
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import check_pictures
from metagvae.zoo.leakage import refuse_trained_images

# by name: what the criterion is called in tables, and whether more of it is better
CRITERIA = {
    "views": ("error on warped images, %", False),
    "centrality": ("ModelCentrality", True),
    "udr_lasso": ("UDR, Lasso", True),
    "udr_spearman": ("UDR, Spearman", True),
    "elbo": ("ELBO, nats", True),
}
LIVE = 0.01  # nats: a unit that carries less tells nothing of an image
WARP = AugmentConfig(rotation=20, scale=0.2, shear=0.1, translation=0.1)
VIEWS, WAY, EPISODES = 5, 20, 400  # warps of an image, of which one is the support; images of an episode; episodes


@dataclass(frozen=True)
class Selection:
    """Runs and what each criterion says of them.

    Args:
        names: of the runs.
        values: by criterion of `CRITERIA`, a number per run.
        agreement: of the runs with each other.
        live: how many units of each run are in use.
    """

    names: list[str]
    values: dict[str, list[float]]
    agreement: Agreement
    live: list[int]

    @property
    def cannot_tell(self) -> str:
        """A sentence if agreement says nothing here; else empty."""
        if self.agreement.recognises_itself:
            return ""
        own = float(self.agreement.corrected.diagonal().mean())
        return (
            f"ModelCentrality cannot tell: these runs do not recognise their own traversals ({own:.2f} on average, 0 "
            "is guessing)."
        )

    def tells(self, by: str) -> bool:
        """Whether a criterion of `CRITERIA` says anything of these runs."""
        return not (by == "centrality" and self.cannot_tell) and not np.isnan(self.values[by]).all()

    def best(self, by: str) -> int:
        """The place of the run that a criterion picks.

        Raises:
            InputError: if it is no criterion, or says nothing of these runs.
        """
        if by not in CRITERIA:
            raise InputError(f"--by must be one of {', '.join(CRITERIA)}; received {by!r}.")
        if by == "centrality" and self.cannot_tell:
            raise InputError(f"{self.cannot_tell} Choose by another criterion, such as --by views.")
        values = np.array(self.values[by])
        if not self.tells(by):
            raise InputError(
                f"{CRITERIA[by][0]} cannot be compared between these runs: their likelihoods are of different things, "
                "or their inference has no density. Choose by another criterion, such as --by views."
            )
        return int(np.nanargmax(values) if CRITERIA[by][1] else np.nanargmin(values))

    def plain(self) -> list[dict[str, str]]:
        """Rows of text, a table's cells by column."""
        own, short = self.agreement.corrected.diagonal(), short_names(self.names)
        return [
            {
                "run": short[name],
                "live units": str(self.live[place]),
                **{CRITERIA[by][0]: _shown(by, values[place]) for by, values in self.values.items()},
                "recognises itself": f"{own[place]:.2f}",
            }
            for place, name in enumerate(self.names)
        ]

    def table(self) -> str:
        """Plain text, one row per run."""
        rows = self.plain()
        lines = [text_table([list(rows[0]), *(list(row.values()) for row in rows)])]
        return "\n".join([*lines, *filter(None, [self.cannot_tell])])

    def content(self) -> dict[str, Any]:
        """Every number, for JSON."""
        return {
            "provenance": provenance(),
            "rows": self.plain(),
            "runs": list(short_names(self.names).values()),
            "values": self.values,
            "live": self.live,
            "agreement": self.agreement.corrected.tolist(),
            "chance": self.agreement.error.tolist(),
            "cannot_tell": self.cannot_tell,
        }

    def save(self, path: Path) -> None:
        write_json(path, self.content())


def _shown(by: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    return {"views": f"{100 * value:.1f}", "elbo": f"{value:.1f}"}.get(by, f"{value:.3f}")


def select(
    runs: Sequence[str],
    bank: ImageBank,
    groups: int = 120,
    images: int = 32,
    seed: int = 0,
    device: Device | None = None,
) -> Selection:
    """Every criterion on every run; a pure function of runs, images and seed.

    Args:
        runs: folders of finished pretraining runs, two or more.
        bank: images that no run was trained on, or a training split asked for as such; their labels are not looked at.
        groups: that each model draws; a multiple of its live units is best.
        images: of a group.
        seed: of images, warps and groups, from 0 on.

    Raises:
        InputError: if a run has no decoder, takes other images, or was trained on some of these.
    """
    if len(runs) < 2 or not all_different(runs):
        raise InputError(f"select needs two runs or more, each once; received {', '.join(runs) or 'none'}.")
    check_seed(seed, "--seed", 0)
    check_view_images(len(bank))
    if groups < 20 or images < 2:
        raise InputError(f"select needs --groups of 20 or more and --images of 2 or more; received {groups}, {images}.")
    device = device or Device.choose("cpu")
    models: list[GuidedVAE] = []
    for name in runs:
        trained = zoo.open(name)
        vae = trained.vae()
        check_pictures(vae.encoder, bank, name)
        refuse_trained_images(trained, bank)
        device.place(vae)
        models.append(vae)
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))[:1024]
    shown = to_float(bank.gather(order)).to(device.device)
    with torch.no_grad():
        live = [live_units(vae, shown) for vae in models]
        codes = [_codes(vae, shown)[:, units] for vae, units in zip(models, live, strict=True)]
        values = {
            "views": [float(view_errors(vae.encoder, shown, seed).mean()) for vae in models],
            "udr_lasso": udr(codes, "lasso").tolist(),
            "udr_spearman": udr(codes, "spearman").tolist(),
            "elbo": elbos(models, shown, seed),
        }
        agreement = agree(models, live, groups, images, seed)
    values["centrality"] = agreement.centrality.tolist()
    return Selection(list(runs), {by: values[by] for by in CRITERIA}, agreement, [len(units) for units in live])


def live_units(vae: GuidedVAE, images: Tensor) -> np.ndarray:
    """Numbers of the units that carry more than `LIVE` nats; of a prior that does not say, those that vary."""
    carried = vae.kl_of_units(vae.infer(images))
    if carried is None:
        codes = _codes(vae, images)
        return np.flatnonzero(codes.std(0) > 0.1 * codes.std(0).max())
    return np.flatnonzero(carried.cpu().numpy() > LIVE)


def agree(models: Sequence[GuidedVAE], live: Sequence[np.ndarray], groups: int, images: int, seed: int) -> Agreement:
    """Every encoder on every model's groups."""
    count = len(models)
    corrected, error = np.zeros((count, count)), np.zeros(count)
    for j, model in enumerate(models):
        labels = len(live[j])
        if labels < 2:
            continue
        error[j] = np.sqrt(1 / labels * (1 - 1 / labels) / groups) / (1 - 1 / labels)
        shared = np.arange(groups) % labels
        drawn = traversals(model, live[j][shared], images, seed)
        for i, encoder in enumerate(models):
            if len(live[i]):
                votes = least_varying(_codes(encoder, drawn), groups, live[i])
                corrected[i, j] = above_chance(held_out_accuracy(votes, shared), labels)
    return Agreement(corrected, error)


def traversals(model: GuidedVAE, units: np.ndarray, images: int, seed: int) -> Tensor:
    """Groups of images ``[groups * images, C, H, W]`` that share one unit of the model's prior each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        z = model.prior.sample(len(units) * images, {}).view(len(units), images, -1)
    for group, unit in enumerate(units):
        z[group, :, unit] = z[group, 0, unit]
    return torch.cat([model.decode(rows) for rows in z.flatten(0, 1).split(512)])


def _codes(vae: GuidedVAE, images: Tensor) -> np.ndarray:
    """float64 ``[n, latent]``: posterior means."""
    means = [full_precision(vae.infer(rows).mean) for rows in images.split(512)]
    codes: np.ndarray = torch.cat(means).double().cpu().numpy()
    return codes


def elbo(vae: GuidedVAE, images: Tensor, seed: int) -> float:
    """The evidence lower bound of an image in nats, with constants, averaged; NaN if the inference has no density."""
    posterior = vae.infer(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        z = posterior.sample()
    return float((vae.log_likelihood(images, z) - vae.kl(posterior)).mean())


def elbos(models: Sequence[GuidedVAE], images: Tensor, seed: int) -> list[float]:
    """The `elbo` of each model; NaN for all if their likelihoods are of different things."""
    if len({model.likelihood for model in models}) > 1:
        return [math.nan] * len(models)
    return [elbo(model, images, seed) for model in models]


@torch.no_grad()
def view_errors(encoder: nn.Module, images: Tensor, seed: int, episodes: int = EPISODES) -> np.ndarray:
    """Errors of nearest prototypes on episodes whose classes are single images, each shown under mild warps.

    It asks for what a few-shot learner needs, the same thing known again, and needs no label. The encoder returns
    its own choice of features.

    An episode is of `WAY` images, or all where there are fewer. Each image is warped once for all episodes, which then
    differ by their images; of less than twice `WAY` images, most are in every episode, and each episode warps its own
    anew. So the spread over episodes is never nil because all are the same one.

    Args:
        images: ``[B, C, H, W]`` in [0, 1], on the encoder's device; two or more.
        seed: of warps and episodes.

    Returns:
        float64 ``[episodes]``, in [0, 1].

    Raises:
        InputError: if there are too few images, or features are not finite.
    """
    check_view_images(len(images))
    rng = np.random.default_rng(seed)
    drawn = [torch.from_numpy(rng.permutation(len(images))[:WAY]) for _ in range(episodes)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if len(images) < 2 * WAY:
            return np.array([_missed(_features_of_views(encoder, images[rows])) for rows in drawn])
        features = _features_of_views(encoder, images)
    return np.array([_missed(features[rows]) for rows in drawn])


def check_view_images(count: int) -> None:
    """Raises `InputError` for so few images that none could be taken for another."""
    if count < 2:
        raise InputError(
            f"the error on warped images needs 2 images or more, to tell apart; received {count}. Choose a split or a "
            "data set that has more."
        )


def _features_of_views(encoder: nn.Module, images: Tensor) -> Tensor:
    """``[B, VIEWS, D]``: features of images under as many warps, on the CPU."""
    shown = [warp(images, WARP).images for _ in range(VIEWS)]
    features = torch.stack([torch.cat([encoder(rows) for rows in view.split(512)]) for view in shown], 1).cpu()
    if not features.isfinite().all():
        raise InputError("the encoder's features of warped images are not finite; train it with a lower optim.lr.")
    return features


def _missed(features: Tensor) -> float:
    """The share of views of N images ``[N, VIEWS, D]`` that lie nearer to another's first view than to their own's."""
    apart = torch.cdist(features[:, 1:].flatten(0, 1), features[:, 0])
    missed = apart.argmin(1) != torch.arange(len(features)).repeat_interleave(VIEWS - 1)
    return float(missed.double().mean())
