"""`metagvae demo`: a page to draw on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from episodes.errors import InputError
from metagvae.cli.outputs import say

if TYPE_CHECKING:
    from metagvae.demo.quiz import Quiz


def demo(
    encoder: str = "handwriting",
    run: str | None = None,
    data: str = "digits",
    root: str | None = None,
    way: int = 5,
    host: str = "127.0.0.1",
    port: int = 7860,
) -> None:
    """Serve a page to draw characters on, move latent units, and play episodes against the encoder.

    Args:
        encoder: a shipped name, an encoder or run folder; of the tabs Draw and Episodes.
        run: folder of a finished `metagvae pretrain`, or a shipped generator; for the tabs Latent,
            Causes, Drawn and Quiz.
        data: a registered data set, whose test pictures are played with and moved; none whose classes the encoder was
            trained on.
        root: where its pictures are; leave out to look under METAGVAE_DATA and ./data.
        way: characters to choose from in an episode.
        host: address to serve on; the default cannot be reached from other machines.
        port: to serve on.
    """
    from metagvae.demo.guard import private_uploads

    if not 1 <= port <= 65535:
        raise InputError(f"--port must be between 1 and 65535; received {port}.")
    with private_uploads():
        _serve(encoder, run, data, root, way, host, port)


def _serve(encoder: str, run: str | None, data: str, root: str | None, way: int, host: str, port: int) -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError("the demo needs gradio, which is not installed: pip install 'metagvae[demo]'.") from error
    from episodes.datasets import make_dataset
    from metagvae import zoo
    from metagvae.demo.moving import LatentView
    from metagvae.demo.page import build, serve
    from metagvae.demo.playing import Game
    from metagvae.zoo.leakage import refuse_trained_classes

    if not 2 <= way <= 10:
        raise InputError(f"--way must be between 2 and 10 for a page; received {way}.")
    trained = zoo.open(encoder)
    loaded, vae = trained.encoder(), zoo.open(run).vae() if run else None
    size = loaded.config.size
    pictures = make_dataset(data, root=root, size=size).load("test")
    refuse_trained_classes(trained, pictures)
    view = LatentView(vae, pictures) if vae else None
    photographs = "photos" if "photos" in zoo.installed_encoders() else None
    quiz = _quiz(run) if run else None
    serve(build(encoder, Game(loaded, pictures, way), view, photographs, quiz), host, port)


def _quiz(run: str) -> Quiz | None:
    """The quiz of a run on its own data set's test images; None where these are not at hand."""
    from metagvae import zoo
    from metagvae.demo.quiz import Quiz

    trained = zoo.open(run)
    vae = trained.vae()
    try:
        return Quiz(vae, trained.dataset().load("test"))
    except InputError as error:
        say(f"no quiz: {error}")
        return None
