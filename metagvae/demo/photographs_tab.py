"""The tab Photographs: things in front of the camera, or files, known from a photograph or a few."""

from __future__ import annotations

from typing import Any

from PIL import Image

from metagvae.demo.drawing import FORGET, NAMES, Characters
from metagvae.demo.examples_column import chosen_name, kept_images, next_name, renamed, shown
from metagvae.demo.messages import said
from metagvae.demo.photographs import Photographs, take_photograph
from metagvae.evaluation.text_table import markdown_table

FIRST = "Keep photographs of at least two things first."
AGAIN = "Show one of your things again."


def _camera(label: str, name: str) -> Any:
    import gradio as gr

    return gr.Image(sources=["webcam", "upload"], type="filepath", label=label, elem_id=name, height=260)


def photographs_tab(encoder: str | None) -> None:
    """Adds the tab's components; without an encoder it says how to get one."""
    import gradio as gr

    if encoder is None:
        gr.Markdown(
            "Photographs take an encoder that knows them, which is not installed: `pip install 'metagvae[photos]'`, "
            "then start the demo again.",
            elem_id="no-photos",
        )
        return
    gr.Markdown(
        "Show up to twelve things to the camera, or upload photographs of them, one to five each; give them names. "
        "Then show one again under “Which is it?”. Nothing is trained, and no photograph leaves this machine."
    )
    held = gr.State(lambda: Photographs(encoder), time_to_live=FORGET)
    with gr.Row():
        with gr.Column():
            gr.Markdown("### Examples")
            name, wish, rename = chosen_name("photo-")
            example = _camera("A photograph of it", "photo")
            keep = gr.Button("Keep as an example", variant="primary", elem_id="photo-keep")
            gallery = kept_images("photo-")
            forget = gr.Button("Forget all", elem_id="photo-forget")
        with gr.Column():
            gr.Markdown("### Which is it?")
            asked = _camera("One of them again", "photo-asked")
            verdict = gr.Markdown(FIRST, elem_id="photo-verdict")
            ranking = gr.Markdown(elem_id="photo-ranking")

    def add(things: Characters, name: str, path: str | None) -> tuple[Characters, Any, None, str]:
        said(lambda: things.add(name, take_photograph(path)))
        return things, shown(things), None, next_name(things, name)

    def answered(things: Photographs, asked: Image.Image) -> tuple[str, str]:
        found = said(lambda: things.rank(asked))
        cells = [[who, f"{100 * probability:.1f}"] for who, probability, _ in found.rows]
        return f"### {found.sentence()}", markdown_table([["thing", "probability, %"], *cells])

    def ask(things: Photographs, path: str | None) -> tuple[str, str]:
        things.asked = said(lambda: take_photograph(path))
        return answered(things, things.asked)

    def ask_anew(things: Photographs) -> tuple[str, str]:
        if things.asked is None or not things.ready:
            return AGAIN if things.ready else FIRST, ""
        return answered(things, things.asked)

    def clear(things: Photographs) -> tuple[str, str]:
        things.asked = None
        return ask_anew(things)

    answer = [verdict, ranking]
    keep.click(add, [held, name, example], [held, gallery, example, name]).success(ask_anew, held, answer)
    asked.input(ask, [held, asked], answer)
    asked.clear(clear, held, answer)
    rename.click(renamed, [held, name, wish], [held, name, wish, gallery]).success(ask_anew, held, answer)
    forget.click(
        lambda: (Photographs(encoder), [], FIRST, gr.Radio(choices=list(NAMES), value=NAMES[0]), None, ""),
        None,
        [held, gallery, verdict, name, example, ranking],
    )
