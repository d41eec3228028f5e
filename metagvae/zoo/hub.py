"""Encoders on the Hugging Face Hub: ``hub:OWNER/NAME`` in, `push_to_hub` out. No pickle either way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from episodes import InputError
from episodes.untrusted.plain_files import read_json
from episodes.whole_files import write_beside
from metagvae.encoders.encoder import Encoder
from metagvae.storage.strict_load import check_fit, load_strictly
from metagvae.storage.tensors import read_tensors
from metagvae.zoo.card import EncoderCard, card_text
from metagvae.zoo.load import CONFIG, WEIGHTS, save_encoder


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("hub:ID needs the package huggingface_hub; pip install huggingface_hub.") from error
    return huggingface_hub


def download(name: str) -> Path:
    """The folder with a repository's ``config.json`` and ``model.safetensors``, in the Hub's own cache.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

    Raises:
        InputError: if it cannot be fetched.
    """
    repository, _, revision = name.partition("@")
    hub = _client()
    try:
        paths = [Path(hub.hf_hub_download(repository, file, revision=revision or None)) for file in (CONFIG, WEIGHTS)]
    except Exception as error:  # the client raises its own, and those of its transport
        raise InputError(
            f"hub:{name} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0]}). It must hold "
            f"{CONFIG} and {WEIGHTS}; without a network, give a folder that holds these two."
        ) from error
    return paths[0].parent


def timm_architecture(folder: Path) -> str | None:
    """``timm:NAME`` if the folder is a network in timm's layout, else None."""
    path = folder / CONFIG
    content = read_json(path, "a network's config")
    name = content.get("architecture") if isinstance(content, dict) and "encoder" not in content else None
    return f"timm:{name}" if isinstance(name, str) else None


def load_timm_folder(folder: Path, source: str) -> Encoder:
    """An encoder of a folder in timm's layout: the architecture's name and the weights, its classifier left out.

    A config may name the largest network there is: it is built once a sketch of it is known to fit the weights.

    Raises:
        InputError: if there is no such network, or the weights are not its own.
    """
    from metagvae.encoders.external import ForeignEncoder, describe_foreign, sketch_foreign

    where, classifiers = str(folder / WEIGHTS), _classifiers(source)
    read = read_tensors(folder / WEIGHTS)
    tensors = {name: value for name, value in read.items() if name.rpartition(".")[0] not in classifiers}
    check_fit(sketch_foreign(source), tensors, where)
    encoder = ForeignEncoder(describe_foreign(source)[0])
    load_strictly(encoder.network, tensors, where)
    return encoder.eval()


def _classifiers(source: str) -> tuple[str, ...]:
    from metagvae.encoders.external import timm_about

    names = timm_about(source).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def model_card(card: EncoderCard, encoder: Encoder, repository: str) -> str:
    """The repository's README: the Hub's own header, then the encoder's card, loading by its name on the Hub."""
    known = card.licence.lower() if card.licence.lower() in ("mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0") else None
    header = [
        "---",
        "library_name: metagvae",
        f"license: {known or 'other'}",
        "pipeline_tag: image-feature-extraction",
        "tags: [few-shot-learning, guided-vae]",
        "---",
        "",
    ]
    text = card_text(card, encoder.config).replace(f'load_encoder("{card.name}")', f'load_encoder("hub:{repository}")')
    return "\n".join(header) + "\n" + text


def push_to_hub(
    encoder: Encoder, repository: str, card: EncoderCard | None = None, private: bool = False, token: str | None = None
) -> str:
    """Uploads ``config.json``, ``model.safetensors`` and a model card; returns the commit's address.

    Args:
        repository: ``OWNER/NAME``; made if it is not there.
        card: what a stranger needs to know; `metagvae.zoo.load.read_card` reads a run's.
        token: None takes the one that the Hub's client has stored.

    Raises:
        InputError: if the Hub refuses, or cannot be reached.
    """
    card = card or EncoderCard(name=repository.partition("/")[2] or repository)
    hub = _client()
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(encoder, folder, card)
        write_beside(Path(folder) / "README.md", model_card(card, encoder, repository).encode())
        try:
            api = hub.HfApi(token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            message = f"{card.name}, by metagvae"
            return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message))
        except Exception as error:
            raise InputError(
                f"{repository} cannot be written on the Hub ({type(error).__name__}: {str(error).splitlines()[0]}). "
                "Log in with `hf auth login`, or give a token that may write there."
            ) from error
