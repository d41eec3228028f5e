"""`metagvae export-encoder`: an encoder in a folder of its own, or as one file for other programs."""

from __future__ import annotations

from typing import Any

from episodes.errors import InputError, printable
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def export_encoder(
    source: str,
    out: str,
    features: list[str] | None = None,
    name: str | None = None,
    to: str = "safetensors",
    decoder: bool = False,
    half: bool = False,
    stopped: bool = False,
    root: str | None = None,
    refinement: dict[str, Any] | None = None,
) -> None:
    """Copy an encoder into a folder of its own with its card, or into one ONNX or torch.export file.

    Args:
        source: a run folder, an encoder folder, a shipped name, timm:NAME, torchvision:NAME or hub:ID.
        out: the folder to write config.json and model.safetensors to, new or empty; else the .onnx or .pt2 file.
        features: what a call of it returns; leave out to keep the stored choice.
        name: the encoder's name on its card; leave out for the folder's.
        to: safetensors | onnx | torch-export; the last two take any batch size and are compared with the module.
        decoder: take the decoder along, so that `metagvae generate` can draw from the folder; for a run with a VAE.
        half: weights in float16, for a folder with a decoder; they are read back as float32.
        stopped: the source is a pretraining run that was stopped; take the weights of its newest state, or their mean.
        root: of a stopped run, where its training images are; leave out to look where it found them.
        refinement: options of short-run inference, such as {"steps": 10}: what the decoder is given of an image is
            refined by so many steps from the encoder's answer; goes with --decoder true.
    """
    from dataclasses import replace

    from episodes.whole_files import write_beside
    from metagvae import zoo
    from metagvae.storage.atomic_files import check_empty
    from metagvae.training.stopped import StoppedRun
    from metagvae.zoo.card import card_text
    from metagvae.zoo.export import FORMATS

    path = expanded(out)
    if (decoder and to != "safetensors") or (half and not decoder):
        raise InputError("--decoder true goes with --to safetensors, and --half true with --decoder true.")
    if refinement is not None and not decoder:
        raise InputError("--refinement goes with --decoder true: its steps ask the decoder.")
    if name is not None and to != "safetensors":
        raise InputError(f"--name goes with --to safetensors: it stands on the card, and --to {to} writes none.")
    if root is not None and not stopped:
        raise InputError("--root goes with --stopped true: only a stopped run's training images are looked for.")
    if to == "safetensors":
        for kind, suffix in FORMATS.items():
            if path.suffix == suffix:
                raise InputError(f"{out} would be a folder; for a file of that kind give --to {kind}.")
        check_empty(path)
    trained = StoppedRun(source, root) if stopped else zoo.open(source)
    if to != "safetensors":
        from metagvae.zoo.export import export_to

        if path.exists():
            raise InputError(f"{path} is there already; choose another file.")
        check_writable(str(path))
        worst = export_to(trained.encoder(features), path, to)
        say(f"wrote {path}; largest difference from the module {worst:.1e} for batches of 1 and 37")
        return
    config, card = (trained.config if decoder else {}), trained.card
    if refinement is not None:
        config, card = zoo.refined_generator(config, card, refinement)
    check_writable(str(path / "config.json"))
    encoder, card = trained.encoder(features), replace(card, name=printable(name or path.name, lines=False))
    if decoder:
        vae = trained.vae()
        vae.encoder.features = encoder.features
        zoo.save_generator(vae, config, path, card, half)
    else:
        zoo.save_encoder(encoder, path, card)
    write_beside(path / "README.md", card_text(card, encoder.config).encode())
    files = "config.json, model.safetensors" + (", vae.safetensors" if decoder else "")
    say(f"wrote {files} and README.md into {path}")
