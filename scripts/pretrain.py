"""Pretrain a guided VAE: `python scripts/pretrain.py --config configs/omniglot/guided-vae.yaml`."""

import sys

from metagvae.cli import main

sys.exit(main(["pretrain", *sys.argv[1:]]))
