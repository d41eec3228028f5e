"""`metagvae pretrain`: a guided VAE, a sparse encoder or InfoGAN, with its figures."""

from __future__ import annotations

from pathlib import Path

from metagvae.cli.outputs import say
from metagvae.config.sections import PretrainConfig


def pretrain(config: PretrainConfig) -> None:
    """Pretrain a guided VAE, a sparse encoder where the config has a dictionary, InfoGAN where it has an adversary."""
    from episodes.tokens import TokenBank
    from metagvae.compute.processes import ranks
    from metagvae.report import figures
    from metagvae.report.texts import write_texts
    from metagvae.training import dictionaries, pretraining

    folder = Path(config.run.folder)
    if config.dictionary is not None:
        encoder = dictionaries.learn_dictionary(config)
        figures.atoms(encoder, folder / "figures" / "atoms.png")
        figures.curves(folder, folder / "figures" / "curves.png")
        say(f"learnt a dictionary; the run is in {folder}, its encoder in {folder / 'encoder'}")
        return
    vae = pretraining.pretrain(config)
    if not ranks().main:
        return
    bank = config.data.make().load("train")
    if isinstance(bank, TokenBank):
        write_texts(vae, bank, folder / "figures" / "texts.txt")
    else:
        figures.reconstructions(vae, bank, folder / "figures" / "reconstructions.png")
        figures.traversal(vae, bank, folder / "figures" / "traversal.png")
    if config.adversary is not None:
        figures.samples(vae, folder / "figures" / "samples.png")
    figures.curves(folder, folder / "figures" / "curves.png")
    say(f"pretrained; the run is in {folder}, its encoder in {folder / 'encoder'}")
