"""Python programs run as in a new process, without the seconds that it takes to import torch.

Each is forked from a process that has imported torch and what scikit-learn begins with, and nothing of this
repository: what a program forgets to import is missing there too.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any


def python(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Exit status and output of ``python *words``.

    Args:
        words: ``-c CODE``, ``-m MODULE`` or a script, and its arguments.
        cwd: the folder that it is started in.
        environment: variables to set beside those of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        order = {"words": words, "cwd": str(cwd), "environment": {**os.environ, **environment}}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({**order, "out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(list(words), status, out.read_text(), err.read_text())


@cache
def _server() -> subprocess.Popen[str]:
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # whatever the caller set: what forks may have no other threads
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one
    )
    atexit.register(server.communicate)
    return server


def _serve() -> dict[str, Any]:
    """Forks for each order, and returns in the new process with it."""
    for line in iter(sys.stdin.readline, ""):
        process = os.fork()
        if process == 0:
            return dict(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    raise SystemExit


def _become(order: dict[str, Any]) -> list[str]:
    """Takes the order's folder, variables and streams; returns its words."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, paths), *(path for path in sys.path[1:] if path not in paths)]
    for number, name in enumerate((os.devnull, order["out"], order["err"])):
        flags = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
        os.dup2(os.open(name, flags), number)
    return list(order["words"])


if __name__ == "__main__":
    import gc
    import runpy
    import types

    import sklearn.base  # noqa: F401
    import torch._dynamo  # of every training, and as long as torch itself  # noqa: F401

    gc.freeze()  # or each process would copy all that it never uses, to look for garbage as it ends
    assert len(os.listdir("/proc/self/task")) == 1 if Path("/proc").is_dir() else True, "a fork has no other threads"
    option, *rest = _become(_serve())
    if option == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif option == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(option).parent))
        sys.argv = [option, *rest]
        runpy.run_path(option, run_name="__main__")
