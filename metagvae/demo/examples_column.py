"""Examples on the page: twelve names that a visitor may change, and the images kept under each."""

from __future__ import annotations

from typing import Any

from PIL import Image

from metagvae.demo.drawing import Characters
from metagvae.demo.messages import said

FIRST = 5  # names that take their turn by themselves


def chosen_name(prefix: str = "") -> tuple[Any, Any, Any]:
    """The names to choose from, a field for another name, and its button."""
    import gradio as gr

    names = list(Characters("").names)
    name = gr.Radio(names, value=names[0], label="This is", elem_id=f"{prefix}name")
    with gr.Row():
        wish = gr.Textbox(
            show_label=False, placeholder="another name for it", max_length=40, elem_id=f"{prefix}wish", scale=3
        )
        button = gr.Button("Rename", elem_id=f"{prefix}rename", scale=1)
    return name, wish, button


def kept_images(prefix: str = "") -> Any:
    """The gallery of what was kept."""
    import gradio as gr

    return gr.Gallery(
        label="Examples",
        show_label=False,
        columns=3,
        height="auto",
        elem_id=f"{prefix}examples",
        object_fit="contain",
    )


def shown(held: Characters) -> list[tuple[Image.Image, str]]:
    """For the gallery: each image under its name."""
    return [(picture, name) for name in held.names for picture in held.examples.get(name, [])]


def renamed(held: Characters, name: str, wish: str) -> tuple[Characters, Any, str, Any]:
    """The examples, the names to choose from, an empty field and the gallery, after a change of name."""
    import gradio as gr

    new = said(lambda: held.rename(name, wish))
    return held, gr.Radio(choices=list(held.names), value=new), "", shown(held)


def next_name(held: Characters, name: str) -> str:
    """The next of the first names without an example, so that five images and five clicks make a task."""
    return next((other for other in held.names[:FIRST] if not held.examples.get(other)), name)
