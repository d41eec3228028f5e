"""Good files of sparse codes, refined encoders and texts."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from episodes import ImageBank
from episodes.datasets.glosses import FIELDS, FILES
from metagvae import zoo
from metagvae.config import sections as sections
from metagvae.config.dictionary import DictionarySection
from metagvae.encoders.text import TextConfig, TextEncoder
from metagvae.studies.refine import save_refined
from metagvae.training.dictionaries import learn_dictionary


def sparse_config(folder: Path, resume: bool = False) -> sections.PretrainConfig:
    return sections.PretrainConfig(
        dictionary=DictionarySection(side=5, atoms=6, steps=5, grid=2, components=4),
        batch=8,
        optim=sections.OptimSection(steps=2),
        run=sections.RunSection(str(folder), log_every=2, save_every=2, device="cpu", resume=resume),
    )


def make_codes(root: Path, bank: ImageBank) -> None:
    """A sparse run, the run ``pretrain`` refined, a text encoder, and files of texts."""
    save_refined(str(root / "pretrain"), {"steps": 2, "step": 0.1}, root / "refined")
    learn_dictionary(sparse_config(root / "sparse"), bank)
    zoo.save_encoder(TextEncoder(TextConfig(width=4, latent=3, channels=20, size=8)), root / "text")
    article = "<article><h2>Title</h2><p>all are born free and equal in dignity &amp; rights</p></article>"
    with tarfile.open(root / "declarations.tgz", "w:gz") as package:
        for code in ("lat", "eng"):
            page = f'<html data-iso6393="{code}"><body>{article * 21}</body></html>'.encode()
            info = tarfile.TarInfo(f"package/declaration/{code}.html")
            info.size = len(page)
            package.addfile(info, io.BytesIO(page))
    (root / "glosses").mkdir()
    for file in FILES:
        lines = [
            f"{number:08d} {field:02d} n 01 word 0 000 | {field} {number} definition\n"
            for field, name in enumerate(FIELDS)
            for number in range(20)
            if name.startswith(file.removeprefix("data."))
        ]
        (root / "glosses" / file).write_text("  1 Licence\n" + "".join(lines))
