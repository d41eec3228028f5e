"""Texts that VAEs write: rebuilt, between two languages, drawn from the prior; a column for each run.

python experiments/texts.py runs/udhr-vae runs/udhr-trigram-vae runs/udhr-trigram-short-run \\
    --figure docs/images/texts.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from episodes import InputError
from episodes.tokens import TokenBank
from metagvae import zoo
from metagvae.report.texts import draw_texts, text_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--split", default="test")
    parser.add_argument("--figure", type=Path, required=True)
    chosen = parser.parse_args()
    columns = {}
    for run in chosen.runs:
        trained = zoo.open(run)
        bank = trained.data.make().load(chosen.split)
        if not isinstance(bank, TokenBank):
            raise InputError(f"{run} is of images; give runs of texts.")
        columns[Path(run).name] = text_lines(trained.vae(), bank)
    draw_texts(columns, chosen.figure)


if __name__ == "__main__":
    main()
