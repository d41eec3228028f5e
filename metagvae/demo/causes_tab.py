"""Causes: an image as it would have been, had one of its factors been another."""

from __future__ import annotations

import base64
import html
import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metagvae.demo.moving import LatentView, enlarged
from metagvae.vae.guided_vae import GuidedVAE

NONE = (
    "Counterfactual images take a run whose prior knows which factor causes which: `metagvae pretrain --config "
    "configs/pendulum/causal.yaml`, then `metagvae demo --run runs/pendulum-causal --encoder runs/pendulum-causal "
    "--data pendulum`."
)


STYLE = """
.row { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 8px; }
figure { margin: 0; }
img { width: 100%; image-rendering: pixelated; border-radius: 4px; }
figcaption { text-align: center; }
"""


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


def figures(pictures: Sequence[tuple[np.ndarray, str]]) -> str:
    """HTML of pictures ``[H, W, 3]`` beside each other, each over its name, at any width of the page."""
    made = []
    for picture, name in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        source, name = base64.b64encode(file.getvalue()).decode(), html.escape(name)
        made.append(
            f'<figure><img src="data:image/png;base64,{source}" alt="{name}"><figcaption>{name}</figcaption></figure>'
        )
    return f'<div class="row">{"".join(made)}</div>'


def scale(low: float, high: float) -> tuple[float, float, float]:
    """Ends and step of a slider: round numbers, within a range that it covers up to a step."""
    digits = 2 - math.floor(math.log10(high - low))
    step = 10.0**-digits
    first, last = (round(number * step, digits) for number in (math.ceil(low / step), math.floor(high / step)))
    return first, last, step


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

    def looked(image: Tensor, factor: str, value: float) -> tuple[str, str]:
        pictures, said = causes.look(image, factor, value)
        return figures(pictures), said

    def slider(factor: str) -> dict[str, Any]:
        low, high, step = scale(*causes.ranges[factor])
        middle = round(low + step * round((high - low) / step / 2), 12)  # on a step
        return {"minimum": low, "maximum": high, "step": step, "value": middle}

    start = slider(names[0])
    pictures, said = looked(first, names[0], start["value"])
    image = gr.State(lambda: first)
    with gr.Row():
        with gr.Column():
            seen = gr.HTML(pictures, css_template=STYLE, elem_id="counterfactual")
            sentence = gr.Markdown(said, elem_id="moved-by")
        with gr.Column():
            factor = gr.Radio(names, value=names[0], label="Factor", elem_id="factor")
            number = gr.Slider(**start, label="Set to", elem_id="set-to")
            another = gr.Button("Another image", elem_id="another-cause")

    def chosen(image: Tensor, factor: str) -> list[Any]:
        moved = slider(factor)
        return [gr.Slider(**moved), *looked(image, factor, moved["value"])]

    def drawn(factor: str, value: float) -> list[Any]:
        picture = view.picture(random.randrange(len(view.bank)))
        return [picture, *looked(picture, factor, value)]

    factor.input(chosen, [image, factor], [number, seen, sentence])
    number.input(looked, [image, factor, number], [seen, sentence], show_progress="hidden")
    another.click(drawn, [factor, number], [image, seen, sentence])
