#!/usr/bin/env bash
# Installs if needed and runs the tests; arguments go to pytest. Tests on real pictures need METAGVAE_DATA.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/install.sh
exec .venv/bin/python -m pytest "$@"
