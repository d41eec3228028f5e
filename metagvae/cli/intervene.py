"""`metagvae intervene`: an image as it would have been, had a factor been another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_figure, check_writable, say

if TYPE_CHECKING:
    from torch import Tensor

    from metagvae.vae.guided_vae import GuidedVAE
    from metagvae.zoo.trained import Trained


def intervene(
    run: str,
    image: str,
    do: list[str] | None = None,
    split: str = "test",
    out: str = "counterfactual.png",
) -> None:
    """The image as it would have been, had factors been others: by a run whose prior knows the causes.

    Args:
        run: the folder of a finished `metagvae pretrain` with the prior causal_flow.
        image: a file, or the number of an image in a split of the run's own data set.
        do: what is done, each time to the image as it was: light=60 sets a factor to a number, light=other.png copies
            it from another image, light=60,angle=10 sets two at once. Leave out for the ends of each factor's range.
        split: test | validation | train; of images given by number.
        out: file (.png, .svg or .pdf) to draw the image and what became of it to.
    """
    from metagvae import zoo
    from metagvae.report.figures import tile

    check_figure(out)
    check_writable(out, inputs=[run, image])
    trained = zoo.open(run)
    vae = trained.vae()
    ranges = vae.prior.settings()
    if not ranges:
        raise InputError(f"the prior '{vae.prior.name}' of {run} knows no causes; pretrain with vae.prior causal_flow.")
    asked = do or [f"{name}={end:g}" for name, ends in ranges.items() for end in ends]
    interventions = [dict(_one(part, text, trained, split) for part in text.split(",")) for text in asked]
    shown = _image(image, trained, split)
    rows = [shown, vae.reconstruct(shown)]
    for text, each in zip(asked, interventions, strict=True):
        rows.append(vae.counterfactual(shown, each))
        say(f"do({text}): {_moved(vae, shown, each)}")
    tile(rows, ["image", "rebuilt", *(f"do({text})" for text in asked)], expanded(out), f"{trained}: {image}")
    say(f"wrote {out}")


def _one(part: str, text: str, trained: Trained, split: str) -> tuple[str, Tensor]:
    """A factor and what it is set to, of ``light=60`` or ``light=other.png``."""
    import torch

    name, sign, value = part.strip().partition("=")
    if not sign or not name or not value:
        raise InputError(
            f"--do takes factors and their values, such as light=60 or light=other.png; received {text[:200]!r}."
        )
    try:
        return name, torch.tensor([float(value)])
    except ValueError:
        return name, _image(value, trained, split)


def _image(name: str, trained: Trained, split: str) -> Tensor:
    """float ``[1, C, H, W]`` of a file, or of a number in a split of the run's data set."""
    from episodes import to_float
    from metagvae.classifier.inputs import collect

    config = trained.encoder().config
    if not name.isdecimal() or expanded(name).exists():
        pictures = collect([str(expanded(name))], config.channels, config.size)
        return pictures.on(pictures.scale(None, False))
    bank = trained.data.make().load(split)
    if int(name) >= len(bank):
        raise InputError(f"the {split} split of {bank.dataset} has images 0 to {len(bank) - 1}; received {name}.")
    return to_float(bank.images[int(name) : int(name) + 1])


def _moved(vae: GuidedVAE, image: Tensor, do: dict[str, Tensor]) -> str:
    """Which factors an intervention moves, in words."""
    units = vae.encoder.units
    before, after = vae.infer(image).mean, vae.intervened(image, do)
    moved = [name for name in units if name not in do and bool((before != after)[:, units[name]].any())]
    kept = [name for name in units if name not in do and name not in moved]
    return f"moves {', '.join(moved) or 'nothing else'}; keeps {', '.join(kept) or 'nothing'}"
