"""`metagvae pretrain`: a guided VAE, with its figures."""

from __future__ import annotations

from pathlib import Path

from metagvae.cli.outputs import say
from metagvae.config.sections import PretrainConfig


def pretrain(config: PretrainConfig) -> None:
    """Pretrain a guided VAE."""
    from episodes.tokens import TokenBank
    from metagvae.compute.processes import ranks
    from metagvae.report import figures
    from metagvae.report.texts import write_texts
    from metagvae.training import pretraining

    vae = pretraining.pretrain(config)
    if not ranks().main:
        return
    folder = Path(config.run.folder)
    bank = config.data.make().load("train")
    if isinstance(bank, TokenBank):
        write_texts(vae, bank, folder / "figures" / "texts.txt")
    else:
        figures.reconstructions(vae, bank, folder / "figures" / "reconstructions.png")
        figures.traversal(vae, bank, folder / "figures" / "traversal.png")
    figures.curves(folder, folder / "figures" / "curves.png")
    say(f"pretrained; the run is in {folder}, its encoder in {folder / 'encoder'}")
