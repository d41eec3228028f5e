"""Speed beside the peers': `python scripts/benchmark.py --out benchmark.json`."""

import sys

from metagvae.cli import main

sys.exit(main(["benchmark", *sys.argv[1:]]))
