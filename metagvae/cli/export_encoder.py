"""`metagvae export-encoder`: an encoder in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from episodes.errors import InputError
from metagvae.cli.outputs import check_writable


def export_encoder(source: str, out: str, features: list[str] | None = None, name: str | None = None) -> None:
    """Copy an encoder out of a run (or a shipped one) into a folder of its own, with its card.

    Args:
        source: a run folder, an encoder folder or a shipped name.
        out: the folder to write config.json and model.safetensors to.
        features: what a call of it returns; leave out to keep the stored choice.
        name: the encoder's name on its card; leave out for the folder's.
    """
    from dataclasses import replace

    from metagvae.checkpoints import card_text, load_encoder, read_card, save_encoder
    from metagvae.files import write_beside

    out = str(Path(out).expanduser())
    check_writable(str(Path(out) / "config.json"))
    if (Path(out) / "config.json").exists():
        raise InputError(f"{out} already holds an encoder; choose another folder.")
    encoder, card = load_encoder(source, features), replace(read_card(source), name=name or Path(out).name)
    save_encoder(encoder, out, card)
    write_beside(Path(out) / "README.md", card_text(card, encoder.config).encode())
    print(f"wrote config.json, model.safetensors and README.md into {out}")
