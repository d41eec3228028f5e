"""The tab Draw: characters of one's own, named after every stroke."""

from __future__ import annotations

from typing import Any

from episodes import InputError
from metagvae.demo.drawing import FORGET, NAMES, Characters
from metagvae.demo.examples_column import chosen_name, kept_images, next_name, renamed, shown
from metagvae.demo.ink import from_page, take_upload
from metagvae.demo.messages import said
from metagvae.demo.pad import pad
from metagvae.evaluation.text_table import markdown_table

FIRST = "Draw examples of at least two characters first."
AGAIN = "Draw one of your characters again."


def draw_tab(encoder: str) -> None:
    """Adds the tab's components."""
    import gradio as gr

    gr.Markdown(
        "Make up to twelve characters: draw each once, up to five times, or upload images of them. Then draw one "
        "again under “Which is it?”: the encoder says which it is after every stroke, and nothing is trained."
    )
    held = gr.State(lambda: Characters(encoder), time_to_live=FORGET)
    with gr.Row():
        with gr.Column():
            gr.Markdown("### Examples")
            name, wish, rename = chosen_name()
            example = pad("example")
            keep = gr.Button("Keep as an example", variant="primary", elem_id="keep")
            files = gr.UploadButton("Upload images of it", file_count="multiple", elem_id="files")
            gallery = kept_images()
            forget = gr.Button("Forget all", elem_id="forget")
        with gr.Column():
            gr.Markdown("### Which is it?")
            asked = pad("asked")
            verdict = gr.Markdown(FIRST, elem_id="verdict")
            ranking = gr.Markdown(elem_id="ranking")

    def add(characters: Characters, name: str, drawing: str) -> tuple[Characters, Any, str, str]:
        said(lambda: characters.add(name, from_page(drawing)))
        return characters, shown(characters), "", next_name(characters, name)

    def upload(characters: Characters, name: str, paths: list[str] | None) -> tuple[Characters, Any]:
        problems = []
        for path in paths or []:
            try:
                characters.check_room(name)
                characters.add(name, take_upload(path))
            except InputError as error:
                problems.append(str(error))
        if problems:
            gr.Warning(" ".join(problems[:5]), duration=10)
        return characters, shown(characters)

    def ask(characters: Characters, drawing: str) -> tuple[str, str]:
        try:
            found = characters.rank(from_page(drawing))
        except InputError as error:
            return str(error), ""
        cells = [[who, f"{100 * probability:.1f}", f"{distance:.2f}"] for who, probability, distance in found.rows]
        lines = [["character", "probability, %", "distance"], *cells]
        return f"### {found.sentence()}", markdown_table(lines)

    def ask_anew(characters: Characters, drawing: str) -> tuple[str, str]:
        if not drawing or not characters.ready:
            return AGAIN if characters.ready else FIRST, ""
        return ask(characters, drawing)

    answer = [held, asked], [verdict, ranking]
    keep.click(add, [held, name, example], [held, gallery, example, name]).success(ask_anew, *answer)
    files.upload(upload, [held, name, files], [held, gallery]).success(ask_anew, *answer)
    asked.input(ask, *answer, show_progress="hidden")
    asked.clear(lambda characters: ask_anew(characters, ""), held, [verdict, ranking])
    rename.click(renamed, [held, name, wish], [held, name, wish, gallery]).success(ask_anew, *answer)
    forget.click(
        lambda: (Characters(encoder), [], FIRST, gr.Radio(choices=list(NAMES), value=NAMES[0]), "", ""),
        None,
        [held, gallery, verdict, name, example, ranking],
    )
