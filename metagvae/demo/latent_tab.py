"""The tab Latent: sliders of latent units beside the decoders' images."""

from __future__ import annotations

import random
from typing import Any

from torch import Tensor

from metagvae.demo.ink import from_page
from metagvae.demo.messages import said
from metagvae.demo.moving import LatentView
from metagvae.demo.pad import pad


def latent_tab(view: LatentView | None) -> None:
    """Adds the tab's components; without a view it says how to get one."""
    import gradio as gr

    if view is None:
        gr.Markdown(
            "Moving latent units takes a whole VAE, and the shipped encoders come without their decoders. Give a "
            "pretraining run: `metagvae pretrain --config configs/glyphs/guided-vae.yaml`, then "
            "`metagvae demo --run runs/glyphs-guided-vae`.",
            elem_id="no-latent",
        )
        return
    gr.Markdown(
        "Draw a character or take an image of the data set. Each slider is a latent unit, guided groups first; KL is "
        "what a unit carries, in nats. The images show what the decoder makes of the units and, with deformable PCA, "
        "the linear image before and after its warp."
    )
    first = view.picture(len(view.bank) // 3)
    start = view.means(first)
    image = gr.State(lambda: first)
    with gr.Row():
        with gr.Column():
            drawing = pad("latent-pad")
            another = gr.Button("An image of the data set", elem_id="another")
            seen = gr.Gallery(
                value=view.look(first, start),
                columns=2,
                label="Through the decoders",
                show_label=False,
                elem_id="seen",
                object_fit="contain",
                height="auto",
            )
        with gr.Column():
            sliders = [
                gr.Slider(
                    -view.reach,
                    view.reach,
                    value=round(value, 2),
                    step=0.05,
                    label=unit.label,
                    elem_id=f"unit-{unit.number}",
                )
                for unit, value in zip(view.units, start, strict=True)
            ]

    def take(image: Tensor) -> list[Any]:
        values = view.means(image)
        return [image, view.look(image, values), *(round(value, 2) for value in values)]

    for slider in sliders:
        slider.input(lambda image, *values: view.look(image, values), [image, *sliders], seen, show_progress="hidden")
    drawing.input(
        lambda value: take(view.drawn(said(lambda: from_page(value)))),
        drawing,
        [image, seen, *sliders],
        show_progress="hidden",
    )
    another.click(lambda: take(view.picture(random.randrange(len(view.bank)))), None, [image, seen, *sliders])
