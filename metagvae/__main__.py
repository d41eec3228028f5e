import sys

from metagvae.cli import main

sys.exit(main())
