"""`metagvae push-encoder`: an encoder onto the Hugging Face Hub."""

from __future__ import annotations

from metagvae.cli.outputs import say


def push_encoder(source: str, repository: str, features: list[str] | None = None, private: bool = False) -> None:
    """Upload an encoder with its model card to the Hugging Face Hub; log in with `hf auth login` before.

    Args:
        source: a run folder, an encoder folder or a shipped name.
        repository: OWNER/NAME on the Hub, made if it is not there.
        features: what a call of it returns; leave out to keep the stored choice.
        private: whether only its owner may see a repository made now.
    """
    from metagvae import zoo

    trained = zoo.open(source)
    say(zoo.push_to_hub(trained.encoder(features), repository, trained.card, private))
