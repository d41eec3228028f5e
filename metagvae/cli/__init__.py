"""The command line, a thin skin over the functions: `metagvae pretrain | train | evaluate | ...`; a file each."""

import gc

from metagvae.cli.main import main
from metagvae.cli.parser import build_parser

__all__ = ["build_parser", "main"]

# modules stay to the end: a command ends half a second sooner where no garbage is looked for among torch's
gc.freeze()
