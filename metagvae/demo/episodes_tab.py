"""The tab Episodes: a question, images to choose from, the verdict on it; the next question comes when asked for."""

from __future__ import annotations

from typing import Any

from metagvae.demo.playing import Game, Score


def episodes_tab(game: Game) -> None:
    """Adds the tab's components."""
    import gradio as gr

    gr.Markdown(
        f"One image of each of {game.way} characters that the encoder never saw in training. Which of them is "
        "the single image? Click it in the row."
    )
    number, score, answered = gr.State(0), gr.State(lambda: Score()), gr.State(False)
    supports, query = game.show(0)
    question = gr.Image(
        value=query, show_label=False, interactive=False, elem_id="question", height=190, width=190, buttons=[]
    )
    verdict = gr.Markdown(Score().sentence(), elem_id="said")
    following = gr.Button("Next question", visible=False, elem_id="next", variant="primary")
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

    def answer(number: int, score: Score, answered: bool, chosen: gr.SelectData) -> tuple[Any, ...]:
        if answered:  # one answer a question
            return score, True, gr.skip(), gr.skip()
        new, sentence = game.answer(number, int(chosen.index), score)
        return new, True, sentence, gr.Button(visible=True)

    def go_on(number: int, score: Score) -> tuple[Any, ...]:
        supports, query = game.show(number + 1)
        named = [(picture, str(way + 1)) for way, picture in enumerate(supports)]
        shown = gr.Gallery(value=named, selected_index=None)
        return number + 1, False, shown, query, score.sentence(), gr.Button(visible=False)

    answer.__annotations__["chosen"] = gr.SelectData  # gradio finds out by it what to hand over
    choices.select(answer, [number, score, answered], [score, answered, verdict, following])
    following.click(go_on, [number, score], [number, answered, choices, question, verdict, following])
