"""The command `metagvae`, also as `python -m metagvae`."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line; see `metagvae.cli.main.main` for the status it returns."""
    try:
        from metagvae.cli import main as run
    except KeyboardInterrupt:  # in the seconds that the import of torch takes
        sys.stderr.write("metagvae: stopped\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
