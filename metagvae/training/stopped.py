"""Pretraining runs that were stopped before their end: the VAE as their newest state has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from episodes import InputError
from episodes.paths import expanded
from episodes.untrusted.plain_files import read_json
from metagvae.config.parse import from_dict
from metagvae.config.sections import PretrainConfig
from metagvae.encoders import spectral_norm
from metagvae.encoders.encoder import Encoder
from metagvae.runs.run import read_config
from metagvae.runs.states import States
from metagvae.storage.strict_load import load_strictly
from metagvae.training.pretraining import card_of, fit_prior
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import attribute_sizes, factor_ranges, new_encoder, new_vae


def _weights(state: Mapping[str, Any], folder: str | Path) -> Mapping[str, Tensor]:
    """The weights that a run would keep now: their mean, where it has begun to take one."""
    average = state.get("average")
    kept = average.get("mean") if isinstance(average, dict) and average.get("count") else state.get("module")
    if not isinstance(kept, dict):
        raise InputError(f"the newest state of {folder} is damaged: it holds no weights.")
    return kept


class StoppedRun:
    """A stopped run, as `metagvae.zoo.Trained` is a finished one: its card, its config, its encoder, its VAE.

    The training pictures are read again, since the card names their classes.

    Args:
        folder: of the run.
        root: where its pictures are; None looks where the run found them.

    Raises:
        InputError: if it is no pretraining run of a VAE, has no state yet, began with other pictures, or its files are
            damaged.
    """

    def __init__(self, folder: str | Path, root: str | None = None) -> None:
        place = expanded(folder)
        self.config = read_config(place)
        if self.config["kind"] != "pretrain" or self.config.get("dictionary") or self.config.get("adversary"):
            raise InputError(
                f"{folder} is no pretraining run of a VAE; only such a run can be exported before its end."
            )
        known = {field.name for field in fields(PretrainConfig)}
        config = from_dict(PretrainConfig, {key: value for key, value in self.config.items() if key in known})
        config.data.root = root or config.data.root
        state = States(place / "state").load()
        if state is None:
            raise InputError(
                f"{folder} has no state yet; one is written every run.save_every steps and when the run is stopped."
            )
        bank = config.data.make().load("train")
        noted = read_json(place / "data.json", "what the run notes of its pictures")
        if not isinstance(noted, dict) or noted.get("fingerprint") != bank.fingerprint:
            raise InputError(
                f"{folder} was trained on other pictures than those found now ({bank.dataset}, fingerprint "
                f"{bank.fingerprint}); name the folder of its own by --root."
            )
        vae = new_vae(
            new_encoder(config.encoder, config.vae, bank, config.run.seed),
            config.vae,
            attribute_sizes(bank),
            factors=factor_ranges(bank),
        )
        load_strictly(vae, _weights(state, folder), str(place / "state"))
        if "average" in state:
            spectral_norm.find(vae)  # of the mean weight; a mean of unit vectors is none
        self._vae = vae.eval()
        fit_prior(vae, bank)
        work = f"{state['step']} of {config.optim.steps} steps of {min(config.batch, len(bank))}"
        made_by = read_json(place / "provenance.json", "what made a run")
        self.card = card_of(config, bank, place.name, made_by, work)

    def vae(self) -> GuidedVAE:
        """The whole VAE, in evaluation mode."""
        return self._vae

    def encoder(self, features: list[str] | None = None) -> Encoder:
        """Its encoder; a call returns ``features``, or what its config says."""
        if features is not None:
            self._vae.encoder.features = features
        return self._vae.encoder
