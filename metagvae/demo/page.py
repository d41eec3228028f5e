"""The page: its tabs, and serving it on gradio."""

from __future__ import annotations

import os
from typing import Any

from episodes import InputError
from metagvae.demo.causes_tab import causes_tab
from metagvae.demo.draw_tab import draw_tab
from metagvae.demo.drawing import FORGET
from metagvae.demo.episodes_tab import episodes_tab
from metagvae.demo.generating import drawn_tab, quiz_tab
from metagvae.demo.guard import SameOrigin, own_names
from metagvae.demo.latent_tab import latent_tab
from metagvae.demo.moving import LatentView
from metagvae.demo.photographs_tab import photographs_tab
from metagvae.demo.playing import Game
from metagvae.demo.quiz import Quiz
from metagvae.demo.uploads import NamelessUploads

# before gradio is loaded anywhere: nothing is sent from here
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

_SESSIONS = 50  # visitors whose examples are held
_FONTS = ["system-ui", "sans-serif"]


def build(
    encoder: str, game: Game, view: LatentView | None, photographs: str | None = None, quiz: Quiz | None = None
) -> Any:
    """The page, not yet served.

    Args:
        encoder: of the tab Draw, as `FewShotClassifier` takes it.
        game: of the tab Episodes.
        view: of the tabs Latent and Causes; None says there how to get one.
        photographs: the encoder of the tab Photographs; None says there how to get one.
        quiz: of the tabs Drawn and Quiz; None says there how to get one.
    """
    import gradio as gr

    with gr.Blocks(title="metagvae", analytics_enabled=False, delete_cache=(60, FORGET)) as page:
        gr.Markdown("# metagvae")
        with gr.Tab("Draw"):
            draw_tab(encoder)
        with gr.Tab("Photographs"):
            photographs_tab(photographs)
        with gr.Tab("Latent"):
            latent_tab(view)
        with gr.Tab("Causes"):
            causes_tab(view)
        with gr.Tab("Drawn"):
            drawn_tab(quiz)
        with gr.Tab("Quiz"):
            quiz_tab(quiz)
        with gr.Tab("Episodes"):
            episodes_tab(game)
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
            app_kwargs={"middleware": [Middleware(SameOrigin, names=own_names(host)), Middleware(NamelessUploads)]},
            footer_links=[],
            pwa=False,
            enable_monitoring=False,
            ssr_mode=False,
        )
    except OSError as error:
        # gradio's own words on a taken port advise a variable and an argument that this command does not have
        reason = "it is taken, or may not be opened" if "empty port" in str(error) else str(error)
        raise InputError(f"port {port} of {host} cannot be served ({reason}); choose another --port.") from error
    if block:
        print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
        page.block_thread()
    return str(address)
