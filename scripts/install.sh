#!/usr/bin/env bash
# Makes .venv in the repository and installs metagvae with its tests' needs and learn2learn.
# Quick when nothing changed: a stamp of the two files that decide what is installed is kept in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=$(cat setup.py scripts/install.sh | python3 -c 'import hashlib,sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ -f .venv/installed ] && [ "$(cat .venv/installed)" = "$stamp" ]; then
    exit 0
fi

python=${PYTHON:-python3}
"$python" - <<'CHECK'
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"metagvae needs Python 3.10 to 3.13; {sys.executable} is {sys.version.split()[0]}. Set PYTHON=/path/to/python3.12, say.")
CHECK
echo "installing into .venv (several minutes the first time: torch is large)"
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install --quiet --upgrade "pip>=24" "setuptools>=68" wheel
pip install --quiet -e ".[test,dev,encoders,export,docs,demo,sweep,wandb]"

# learn2learn 0.2.0 ships C code that no Python from 3.11 on compiles, and asks for packages it hardly uses.
# Building its extension anew with Cython works; what it imports is installed by name. It is optional: the
# bridge, its tests and the download of miniImageNet are all that use it.
if ! .venv/bin/python -c 'import learn2learn' 2>/dev/null; then
    if pip install --quiet requests dill gym tqdm &&
        pip install --quiet --no-deps --config-settings="--build-option=build_ext" learn2learn==0.2.0; then
        :
    else
        echo "learn2learn could not be built (it needs a C compiler); everything but the bridge to it works." >&2
    fi
fi
# easyfsl is a peer in the benchmark and nothing else needs it: without it, its rows say so
pip install --quiet -e ".[benchmark]" || echo "easyfsl could not be installed; the benchmark goes without." >&2
echo "$stamp" > .venv/installed
