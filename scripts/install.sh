#!/usr/bin/env bash
# Makes .venv in the repository and installs metagvae with its tests' needs and learn2learn: the versions that
# requirements.txt pins, each file checked against its hash.
# A torch of another source is kept if .venv has it already (its version then has a label, such as 2.14.1+cpu): its
# files have other hashes. UNLOCKED=1 installs the newest that setup.py allows instead, unchecked.
# Quick when nothing changed: a stamp of the files that decide what is installed is kept in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

unlocked=${UNLOCKED:-}
stamp=$(cat setup.py requirements.txt scripts/install.sh - <<<"$unlocked" |
    python3 -c 'import hashlib,sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
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
# the list is complete, so nothing else is looked up; what builds a package is on it too. pip compiles all modules: left to
# the first import it is done at every start where PYTHONDONTWRITEBYTECODE is set
locked() { pip install --quiet --require-hashes --no-deps --no-build-isolation "$@"; }
version() { .venv/bin/python -c 'import sys, importlib.metadata as m; print(m.version(sys.argv[1]))' "$1" 2>/dev/null; }
# the entries of requirements.txt whose package matches a pattern, or (with a "!") all others
entries() { awk -v not="${2:-}" -v names="^($1)==" '/^[^ ]/ { kept = ($0 ~ names) == (not == "") } kept' requirements.txt; }

tools='pip|setuptools|wheel|cython'
if [ -n "$unlocked" ]; then
    pip install --quiet --upgrade "pip>=24" "setuptools>=68" wheel cython
    pip install --quiet -e ".[test,dev,encoders,export,docs,demo,sweep,wandb,benchmark,causal,photos]" requests dill gym
else
    left_out=''
    if [[ "$(version torch)" == *+* ]]; then
        left_out='|torch|torchvision|triton|nvidia-.*|cuda-.*'
        echo "torch $(version torch) is of another source and is kept"
        [ -n "$(version torchvision)" ] || {
            echo "install torchvision of the same source into .venv as well, then run this again" >&2
            exit 1
        }
    fi
    locked -r <(entries "$tools") && locked -r <(entries "$tools$left_out" '!') || {
        echo "requirements.txt could not be installed as pinned. If this machine has a torch of another source, put it" \
            "and its torchvision into .venv first; UNLOCKED=1 $0 takes whatever versions setup.py allows." >&2
        exit 1
    }
    pip install --quiet --no-deps --no-build-isolation -e .
fi

# learn2learn 0.2.0 ships C code that no Python from 3.11 on compiles, and asks for packages it hardly uses.
# Building its extension anew with Cython works; what it imports is in requirements.in. It is optional: the
# bridge, its tests and the download of miniImageNet are all that use it.
if ! .venv/bin/python -c 'import learn2learn' 2>/dev/null; then
    source='learn2learn==0.2.0 --hash=sha256:69f1d7cb0d0a6be7a2c6ad8e83e2ebbe70fb05e51d61e45e63078b40c75ea419'
    # the option stands in the list: pip gives one of its command line to no entry of a list
    locked -r <(echo "$source --config-settings=\"--build-option=build_ext\"") ||
        echo "learn2learn could not be built (it needs a C compiler); everything but the bridge to it works." >&2
fi
echo "$stamp" > .venv/installed
