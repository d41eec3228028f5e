"""Causes: an image as it would have been, had one of its factors been another."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metagvae.demo.moving import LatentView, enlarged
from metagvae.vae.guided_vae import GuidedVAE

NONE = (
    "Counterfactual images take a run whose prior knows which factor causes which: `metagvae pretrain --config "
    "configs/pendulum/causal.yaml`, then `metagvae demo --run runs/pendulum-causal --encoder runs/pendulum-causal "
    "--data pendulum`."
)


@dataclass(frozen=True)
class Causes:
    """Interventions that a VAE's prior allows on images.

    Args:
        vae: whose prior has `Prior.settings`.
    """

    vae: GuidedVAE

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest number that each factor can be set to; none where no cause is known."""
        return self.vae.prior.settings()

    @torch.no_grad()
    def look(self, image: Tensor, factor: str, value: float) -> tuple[list[tuple[np.ndarray, str]], str]:
        """An image, its rebuilding and its counterfactual, and a sentence on what moved.

        Args:
            image: ``[1, C, H, W]`` in [0, 1].
            factor: what is set.
            value: to which number; one outside of the range is taken to its end.
        """
        low, high = self.ranges[factor]
        do = {factor: image.new_tensor([min(max(value, low), high)])}
        before, after, units = self.vae.infer(image).mean, self.vae.intervened(image, do), self.vae.encoder.units
        moved = [name for name in units if name != factor and bool((before != after)[:, units[name]].any())]
        seen = [(image, "image"), (self.vae.decode(before), "rebuilt"), (self.vae.decode(after), f"do({factor})")]
        said = f"{factor} = {do[factor].item():.3g} moves {', '.join(moved) or 'nothing else'}."
        return [(enlarged(pictures[0]), name) for pictures, name in seen], said


def causes_tab(view: LatentView | None) -> None:
    """Adds the tab's components; without a prior that knows causes it says how to get one."""
    import gradio as gr

    if view is None or not Causes(view.vae).ranges:
        gr.Markdown(NONE, elem_id="no-causes")
        return
    causes = Causes(view.vae)
    names = list(causes.ranges)
    gr.Markdown(
        "The image as it would have been, had the factor been set: what it causes follows, all else stays. The factors "
        "and their arrows are the run's own."
    )
    first = view.picture(len(view.bank) // 3)
    low, high = causes.ranges[names[0]]
    pictures, said = causes.look(first, names[0], (low + high) / 2)
    image = gr.State(lambda: first)
    with gr.Row():
        with gr.Column():
            seen = gr.Gallery(value=pictures, columns=3, show_label=False, elem_id="counterfactual", height="auto")
            sentence = gr.Markdown(said, elem_id="moved-by")
        with gr.Column():
            factor = gr.Radio(names, value=names[0], label="Factor", elem_id="factor")
            number = gr.Slider(low, high, value=(low + high) / 2, label="Set to", elem_id="set-to")
            another = gr.Button("Another image", elem_id="another-cause")

    def chosen(image: Tensor, factor: str) -> list[Any]:
        low, high = causes.ranges[factor]
        middle = (low + high) / 2
        return [gr.Slider(low, high, value=middle), *causes.look(image, factor, middle)]

    def drawn(factor: str, value: float) -> list[Any]:
        picture = view.picture(random.randrange(len(view.bank)))
        return [picture, *causes.look(picture, factor, value)]

    factor.input(chosen, [image, factor], [number, seen, sentence])
    number.input(causes.look, [image, factor, number], [seen, sentence], show_progress="hidden")
    another.click(drawn, [factor, number], [image, seen, sentence])
