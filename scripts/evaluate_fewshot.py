"""Few-shot error: `python scripts/evaluate_fewshot.py --run RUN --data omniglot --way 5 20 --shot 1 5`."""

import sys

from metagvae.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
