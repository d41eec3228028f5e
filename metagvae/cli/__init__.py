"""The command line, a thin skin over the functions: `metagvae pretrain | train | evaluate | ...`; a file each."""

from metagvae.cli.main import main
from metagvae.cli.parser import build_parser

__all__ = ["build_parser", "main"]
