"""The page: five tabs on gradio."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from torch import Tensor

from episodes import InputError
from metagvae.demo.drawing import NAMES, Characters
from metagvae.demo.generating import drawn_tab, quiz_tab
from metagvae.demo.guard import SameOrigin, own_names
from metagvae.demo.ink import from_page, take_upload
from metagvae.demo.moving import REACH, LatentView
from metagvae.demo.pad import pad
from metagvae.demo.playing import Game, Score
from metagvae.demo.quiz import Quiz
from metagvae.evaluation.text_table import markdown_table

# before gradio is loaded anywhere: nothing is sent from here
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

_SESSIONS, _FORGET = 50, 3600  # visitors whose examples are held, and seconds after their last visit
_FONTS = ["system-ui", "sans-serif"]


def _said(function: Callable[..., Any]) -> Any:
    """The result of a function; or, where it raises `InputError`, that sentence on the page."""
    import gradio as gr

    try:
        return function()
    except InputError as error:
        raise gr.Error(str(error), duration=8, print_exception=False) from error


def _draw_tab(encoder: str) -> None:
    import gradio as gr

    gr.Markdown(
        "Make up characters: draw each once, up to five times, or upload images of them. Then draw one again on "
        "the right: the encoder says which it is after every stroke, and nothing is trained."
    )
    held = gr.State(lambda: Characters(encoder), time_to_live=_FORGET)
    with gr.Row():
        with gr.Column():
            gr.Markdown("### Examples")
            name = gr.Radio(list(NAMES[:5]), value=NAMES[0], label="This is character", elem_id="name")
            example = pad("example")
            keep = gr.Button("Keep as an example", variant="primary", elem_id="keep")
            files = gr.UploadButton("Upload images of it", file_count="multiple", elem_id="files")
            gallery = gr.Gallery(
                label="Examples", show_label=False, columns=3, height="auto", elem_id="examples", object_fit="contain"
            )
            forget = gr.Button("Forget all", elem_id="forget")
        with gr.Column():
            gr.Markdown("### Which is it?")
            asked = pad("asked")
            verdict = gr.Markdown("Draw examples of at least two characters first.", elem_id="verdict")
            ranking = gr.Markdown(elem_id="ranking")

    def shown(characters: Characters) -> list[tuple[Any, str]]:
        return [(picture, name) for name in NAMES for picture in characters.examples.get(name, [])]

    def next_name(characters: Characters, name: str) -> str:
        """The next character without an example, so that five strokes and five clicks make a task."""
        return next((other for other in NAMES[:5] if not characters.examples.get(other)), name)

    def add(characters: Characters, name: str, drawing: str) -> tuple[Characters, Any, str, str]:
        _said(lambda: characters.add(name, from_page(drawing)))
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

    def rank(characters: Characters, drawing: str) -> tuple[str, str]:
        try:
            found = characters.rank(from_page(drawing))
        except InputError as error:
            return str(error), ""
        cells = [[who, f"{100 * probability:.1f}", f"{distance:.2f}"] for who, probability, distance in found.rows]
        lines = [["character", "probability, %", "distance"], *cells]
        return f"### {found.sentence()}", markdown_table(lines)

    keep.click(add, [held, name, example], [held, gallery, example, name])
    files.upload(upload, [held, name, files], [held, gallery])
    asked.input(rank, [held, asked], [verdict, ranking], show_progress="hidden")
    asked.clear(lambda: ("Draw one of your characters again.", ""), None, [verdict, ranking])
    forget.click(
        lambda: (Characters(encoder), [], "", NAMES[0], "", ""), None, [held, gallery, verdict, name, example, ranking]
    )


def _latent_tab(view: LatentView | None) -> None:
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
                    -REACH,
                    REACH,
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
        lambda value: take(view.drawn(_said(lambda: from_page(value)))),
        drawing,
        [image, seen, *sliders],
        show_progress="hidden",
    )
    another.click(lambda: take(view.picture(random.randrange(len(view.bank)))), None, [image, seen, *sliders])


def _episodes_tab(game: Game) -> None:
    import gradio as gr

    gr.Markdown(
        f"One image of each of {game.way} characters that the encoder never saw in training. Which of them is "
        "the single image? Click it in the row."
    )
    number, score = gr.State(0), gr.State(lambda: Score())
    supports, query = game.show(0)
    question = gr.Image(
        value=query, show_label=False, interactive=False, elem_id="question", height=190, width=190, buttons=[]
    )
    said = gr.Markdown(Score().sentence(), elem_id="said")
    choices = gr.Gallery(
        value=[(picture, str(way + 1)) for way, picture in enumerate(supports)],
        columns=game.way,
        height="auto",
        label="Click one",
        show_label=False,
        allow_preview=False,
        elem_id="choices",
        object_fit="contain",
        buttons=[],
    )

    def answer(number: int, score: Score, chosen: gr.SelectData) -> tuple[Any, ...]:
        new, sentence = game.answer(number, int(chosen.index), score)
        supports, query = game.show(number + 1)
        named = [(picture, str(way + 1)) for way, picture in enumerate(supports)]
        return number + 1, new, gr.Gallery(value=named, selected_index=None), query, sentence

    answer.__annotations__["chosen"] = gr.SelectData  # gradio finds out by it what to hand over
    choices.select(answer, [number, score], [number, score, choices, question, said])


def build(encoder: str, game: Game, view: LatentView | None, quiz: Quiz | None = None) -> Any:
    """The page, not yet served.

    Args:
        encoder: of the tab Draw, as `FewShotClassifier` takes it.
        game: of the tab Episodes.
        view: of the tab Latent; None says there how to get one.
        quiz: of the tabs Drawn and Quiz; as ``view``.
    """
    import gradio as gr

    with gr.Blocks(title="metagvae", analytics_enabled=False, delete_cache=(60, _FORGET)) as page:
        gr.Markdown("# metagvae")
        with gr.Tab("Draw"):
            _draw_tab(encoder)
        with gr.Tab("Latent"):
            _latent_tab(view)
        with gr.Tab("Drawn"):
            drawn_tab(quiz)
        with gr.Tab("Quiz"):
            quiz_tab(quiz)
        with gr.Tab("Episodes"):
            _episodes_tab(game)
    return page


def serve(page: Any, host: str, port: int, block: bool = True) -> str:
    """Serves the page and returns its address; with ``block`` only when it is stopped.

    What other sites' pages ask of it is refused, see `metagvae.demo.guard`.

    Raises:
        InputError: if the port is taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    theme = gr.themes.Default(font=_FONTS, font_mono=["monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            quiet=True,
            share=False,
            prevent_thread_lock=True,
            theme=theme,
            max_file_size="16mb",  # twice `MAX_UPLOAD`, whose refusal is a sentence
            state_session_capacity=_SESSIONS,
            app_kwargs={"middleware": [Middleware(SameOrigin, names=own_names(host))]},
            footer_links=[],
            pwa=False,
            enable_monitoring=False,
            ssr_mode=False,
        )
    except OSError as error:
        raise InputError(f"port {port} of {host} cannot be served ({error}); choose another --port.") from error
    if block:
        print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
        page.block_thread()
    return str(address)
