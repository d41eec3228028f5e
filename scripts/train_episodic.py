"""Train on episodes: `python scripts/train_episodic.py --config configs/omniglot/protonet.yaml`."""

import sys

from metagvae.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
