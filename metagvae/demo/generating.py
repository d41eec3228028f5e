"""The tabs Drawn and Quiz of the page: what a VAE draws, and whether a person can tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from metagvae.demo.quiz import EACH, TEMPERATURE, Quiz, Tally
from metagvae.vae.sheet import sheet
from metagvae.vae.synthesis import Synthesis, unit_names

ACROSS, DOWN = 10, 4
NONE = (
    "Drawing takes a whole VAE and the images that it was trained on the like of. Give a pretraining run or a shipped "
    "generator, and have its data set at hand: `metagvae demo --run runs/omniglot-generator`."
)


def _picture(images: Any, polarity: str) -> np.ndarray:
    """Rows of images on one sheet, each pixel enlarged, uint8 ``[H, W, 3]``."""
    pixels = sheet(images, polarity).mul(255).byte().numpy().repeat(3, 0).repeat(3, 1)
    shown: np.ndarray = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()
    return shown


def drawn_samples(quiz: Quiz, seed: int, temperature: float) -> np.ndarray:
    """Samples from the prior on one sheet."""
    images = Synthesis(quiz.vae, temperature, seed).samples(ACROSS * DOWN).images[0]
    return _picture(images.unflatten(0, (DOWN, ACROSS)), quiz.vae.encoder.config.polarity)


def drawn_units(quiz: Quiz, seed: int, temperature: float) -> np.ndarray:
    """A sample with its guided units moved, a row each."""
    synthesis = Synthesis(quiz.vae, temperature, seed)
    units = [unit for group, units in quiz.vae.encoder.units.items() if group != "content" for unit in units][:8]
    units = units or list(unit_names(quiz.vae))[:8]
    reach = min(2.0, quiz.vae.prior.reach)
    values = [reach * (2 * column / (ACROSS - 1) - 1) for column in range(ACROSS)]
    return _picture(synthesis.traversals(synthesis.prior(1)[0], units, values).images, quiz.vae.encoder.config.polarity)


def drawn_tab(quiz: Quiz | None) -> None:
    """Samples and moved units, drawn anew by a button."""
    import gradio as gr

    if quiz is None:
        gr.Markdown(NONE, elem_id="no-drawn")
        return
    gr.Markdown("Samples from the VAE's prior; below, the first of them with each guided unit moved, a row per unit.")
    with gr.Row():
        again = gr.Button("Draw others", variant="primary", elem_id="draw-others")
        temperature = gr.Slider(0.2, 1.0, value=TEMPERATURE, step=0.05, label="Temperature", elem_id="temperature")
    seed = gr.State(0)
    options: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": []}
    samples = gr.Image(value=drawn_samples(quiz, 0, TEMPERATURE), elem_id="samples", **options)
    moved = gr.Image(value=drawn_units(quiz, 0, TEMPERATURE), elem_id="moved", **options)

    def draw(seed: int, temperature: float) -> tuple[int, np.ndarray, np.ndarray]:
        return seed, drawn_samples(quiz, seed, temperature), drawn_units(quiz, seed, temperature)

    again.click(lambda seed, heat: draw(seed + 1, heat), [seed, temperature], [seed, samples, moved])
    temperature.release(draw, [seed, temperature], [seed, samples, moved])


def quiz_tab(quiz: Quiz | None) -> None:
    """One image at a time, two buttons and a score."""
    import gradio as gr

    if quiz is None:
        gr.Markdown(NONE, elem_id="no-quiz")
        return
    number, tally = gr.State(0), gr.State(lambda: Tally())
    question = gr.Image(
        value=quiz.show(0, 0),
        show_label=False,
        interactive=False,
        elem_id="quiz-image",
        height=190,
        width=190,
        buttons=[],
    )
    with gr.Row():
        real = gr.Button("Real", elem_id="quiz-real")
        drawn = gr.Button("Drawn", elem_id="quiz-drawn")
        anew = gr.Button(f"Another {2 * EACH}", elem_id="quiz-anew")
    said = gr.Markdown(Tally().sentence(), elem_id="quiz-said")

    def answered(number: int, tally: Tally, real: bool) -> tuple[Tally, str, np.ndarray]:
        new, sentence = quiz.answer(number, tally, real)
        return new, sentence, quiz.show(number, min(new.asked, 2 * EACH - 1))

    outputs = [tally, said, question]
    real.click(lambda number, tally: answered(number, tally, True), [number, tally], outputs)
    drawn.click(lambda number, tally: answered(number, tally, False), [number, tally], outputs)
    anew.click(
        lambda number: (number + 1, Tally(), Tally().sentence(), quiz.show(number + 1, 0)), number, [number, *outputs]
    )
