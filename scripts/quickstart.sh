#!/usr/bin/env bash
# Installs if needed, then the whole main job on letters drawn from fonts; see scripts/quickstart.py.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/install.sh
exec .venv/bin/python scripts/quickstart.py "$@"
