#!/usr/bin/env bash
# Installs if needed and runs the tests in two processes; arguments go to pytest (-n 0 runs them in one).
# Tests on real pictures need METAGVAE_DATA.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/install.sh
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
