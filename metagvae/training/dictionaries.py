"""The loop that learns the dictionary of a sparse encoder: batches of patches, no labels, no gradients."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from episodes import ImageBank, InputError, to_float
from episodes.counter_rng import seed_for
from metagvae.compute.device import Device
from metagvae.compute.processes import ranks
from metagvae.config.dictionary import DictionarySection, SparseSettings
from metagvae.config.optimisation import OptimSection
from metagvae.config.sections import PretrainConfig, to_dict
from metagvae.encoders.dictionary_learning import DictionaryLearner
from metagvae.encoders.sparse import SparseConfig, SparseEncoder
from metagvae.runs.run import Run, open_run, without_places
from metagvae.runs.signals import Interrupted, StopSignals
from metagvae.storage.strict_load import build, load_strictly
from metagvae.training.pretraining import Shuffle
from metagvae.zoo.build import attribute_sizes
from metagvae.zoo.card import EncoderCard, trained_on
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import classes_seen, images_seen

SEEN = 2000  # pictures, evenly spread, that whitening and the first atoms are found on
TURNED_BY = 6000  # the same, for the mean and the principal directions of their pooled codes
LEARNT_STEPS = 30  # of the solver at least, while atoms are learnt: from codes of 15 they got worse
_FIRST, _DRAWN = 21, 22
_RULES = {
    "online": "learnt online",
    "local": "learnt by the local rule",
    "patches": "training patches as they are",
    "gaussian": "Gaussian at random",
}


def learn_dictionary(config: PretrainConfig, bank: ImageBank | None = None) -> SparseEncoder:
    """Learns a dictionary of the training images' patches and leaves a run folder with its sparse encoder.

    A step is a pure function of (dictionary, moments, seed, step), so a resumed run ends bit-identical on a CPU.

    Args:
        config: with a ``dictionary``; of ``optim`` the steps count alone.
        bank: the training images, if they are at hand; else ``config.data`` loads them.

    Raises:
        InputError: before any learning, if the config cannot work.
        metagvae.runs.signals.Interrupted: if the run was stopped; its state is written.
    """
    chosen = _checked(config)
    settings = _encoder_settings(chosen)
    SparseConfig(**settings, size=512).check()  # what is wrong whatever the images are
    device = Device.choose(config.run.device, "float32")
    bank = bank or config.data.make().load("train")
    channels, size, _ = bank.image_shape
    made = SparseConfig(**settings, channels=channels, size=size, polarity=bank.polarity)
    made.check()
    torch.manual_seed(seed_for(config.run.seed, 0))
    encoder = build(lambda: SparseEncoder(made), "the section 'dictionary'")
    with open_run(
        config.run.folder,
        "pretrain",
        {**to_dict(config), "attributes": attribute_sizes(bank)},
        config.run.resume,
        device.precision_name,
    ) as run:
        run.check_data(bank)
        device.place(encoder)
        bank = device.hold(bank)
        if chosen.rule != "gaussian":
            learner = _learner(config, chosen, encoder, bank, device)
            _fit(run, config, chosen, learner, encoder, bank, device)
            encoder.set_dictionary(learner.dictionary)
        else:
            run.start_metrics(0)
        start = torch.Generator().manual_seed(seed_for(config.run.seed, _FIRST, 2))
        encoder.fit_features(_some(bank, TURNED_BY, device), start)
        encoder.eval().to("cpu")
        caution, licence = config.data.make().caution, config.data.make().licence
        card = EncoderCard(
            name=run.folder.name,
            trained_on=trained_on(bank, caution),
            method=_described(config, chosen),
            licence=f"of the pictures: {licence}",
            trained_classes=classes_seen(bank),
            trained_images=images_seen(bank),
            details={"provenance": without_places(run.provenance), "seed": config.run.seed},
        )
        save_encoder(encoder, run.folder / "encoder", card)
    return encoder


def _checked(config: PretrainConfig) -> DictionarySection:
    """The dictionary's section, once nothing is set that it would pass over."""
    if config.dictionary is None:
        raise InputError("the config has no dictionary to learn; metagvae.training.pretraining.pretrain trains a VAE.")
    if ranks().size > 1:
        raise InputError("a dictionary is learnt in seconds by one process; start it without torchrun.")
    usual = PretrainConfig()
    for name in ("encoder", "vae", "augment", "views"):
        if getattr(config, name) != getattr(usual, name):
            raise InputError(f"a dictionary brings an encoder of its own and would not look at {name}; leave it out.")
    free = OptimSection(steps=config.optim.steps, precision=config.optim.precision)
    if config.optim != free or config.optim.precision not in ("auto", "float32"):
        raise InputError(
            "a dictionary takes optim.steps alone, and computes in float32; leave the other settings of optim out."
        )
    if config.batch < 1:
        raise InputError(f"batch must be >= 1; received {config.batch}.")
    return config.dictionary


def _encoder_settings(chosen: DictionarySection) -> dict[str, Any]:
    """Those of the section's settings that are the encoder's."""
    return {f.name: getattr(chosen, f.name) for f in fields(SparseSettings)}


def _some(bank: ImageBank, count: int, device: Device) -> Tensor:
    """Training images evenly spread over the bank, ``[at most count, C, H, W]`` in [0, 1]."""
    rows = torch.linspace(0, len(bank) - 1, min(len(bank), count)).long()
    return to_float(bank.gather(rows.to(bank.device)).to(device.device))


def _learner(
    config: PretrainConfig, chosen: DictionarySection, encoder: SparseEncoder, bank: ImageBank, device: Device
) -> DictionaryLearner:
    """The learner at its start, and with it the encoder's whitening: both a pure function of the seed."""
    seed = config.run.seed
    some = _some(bank, SEEN, device)
    encoder.patches.fit(some, torch.Generator().manual_seed(seed_for(seed, _FIRST, 0)))
    per_image = max(chosen.patches, -(-4 * chosen.atoms // len(some)))
    rows = encoder.patches.drawn(some, per_image, torch.Generator().manual_seed(seed_for(seed, _FIRST, 1)))
    rule: Literal["online", "local"] = "local" if chosen.rule == "local" else "online"
    return DictionaryLearner(
        rows, chosen.atoms, chosen.penalty, rule, chosen.rate, max(chosen.steps, LEARNT_STEPS), chosen.positive, seed
    ).to(device.device)


def _fit(
    run: Run,
    config: PretrainConfig,
    chosen: DictionarySection,
    learner: DictionaryLearner,
    encoder: SparseEncoder,
    bank: ImageBank,
    device: Device,
) -> None:
    """Takes the run's steps from its newest state on."""
    total = config.optim.steps if chosen.rule != "patches" else 0
    shuffle = Shuffle(len(bank), config.batch, config.run.seed, bank.device)
    start, spent = _restored(run, learner, total)
    run.start_metrics(start)
    began = time.perf_counter() - spent

    def save(step: int) -> None:
        run.states.save(step, {"module": learner.state_dict(), "seconds": time.perf_counter() - began})

    progress = tqdm(total=total, initial=start, desc="dictionary", unit="step", leave=False)
    with progress, StopSignals() as stop:
        for step in range(start, total):
            images = to_float(bank.gather(shuffle(step)).to(device.device, non_blocking=True))
            drawn = torch.Generator().manual_seed(seed_for(config.run.seed, _DRAWN, step))
            terms = learner.update(encoder.patches.drawn(images, chosen.patches, drawn))
            done = step + 1
            progress.update()
            last = done == total
            if done % config.run.log_every == 0 or last:
                values = {name: float(value) for name, value in terms.items()}
                run.log(done, {**values, "seconds": time.perf_counter() - began})
            halt = stop.asked or config.run.stop_after == done
            if halt or last or done % config.run.save_every == 0:
                save(done)
            if halt and not last:
                raise Interrupted(
                    f"stopped after step {done} of {total}; the state is in {run.states.path(done)}. To go on, give "
                    "the same command with --run.resume auto."
                )


def _restored(run: Run, learner: DictionaryLearner, total: int) -> tuple[int, float]:
    """Puts the run's newest state in place and says its step and the seconds spent; (0, 0) without one.

    Raises:
        InputError: if the state is not of this dictionary.
    """
    state = run.states.load()
    if state is None:
        return 0, 0.0
    where: Path = run.states.path(state["step"])
    module, seconds, step = state.get("module"), state.get("seconds"), state["step"]
    tensors = isinstance(module, dict) and all(isinstance(value, Tensor) for value in module.values())
    if not tensors or not isinstance(seconds, float) or not 0 <= seconds < 1e12 or step > total:
        raise InputError(
            f"the state {where} is not of this run: it holds no dictionary of at most {total} steps. Delete it to go "
            "on from the older one, or start a new folder."
        )
    assert isinstance(module, dict)
    load_strictly(learner, module, str(where))
    if int(learner.updates) != step:
        raise InputError(
            f"the state {where} is of step {step} and its dictionary of {int(learner.updates)}; delete it."
        )
    return step, seconds


def _described(config: PretrainConfig, chosen: DictionarySection) -> str:
    """The method, for the encoder's card."""
    steps = f", {config.optim.steps} steps of {config.batch} x {chosen.patches} patches"
    learnt = _RULES[chosen.rule] + (steps if chosen.rule in ("online", "local") else "")
    turned = f", {chosen.components} principal directions" if chosen.components else ""
    whitened = "whitened " if chosen.whiten else ""
    cells = f"{chosen.grid} x {chosen.grid} cells" + (f" of {chosen.cell} places a side" if chosen.cell else "")
    return (
        f"sparse codes ({chosen.solver}, lambda {chosen.penalty:g}) of {whitened}{chosen.side} x {chosen.side} patches "
        f"at stride {chosen.stride}, {chosen.atoms} atoms {learnt}; {chosen.pool} over {cells}, "
        f"power {chosen.power:g}{turned}"
    )
