"""Tensors in safetensors files: read with every failure a sentence, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from episodes import InputError
from episodes.torch_defaults import plain_defaults
from episodes.whole_files import write_beside

MAX_HEADER_BYTES = 2**20


@plain_defaults()
def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises `InputError` if it is missing or malformed."""
    from safetensors.torch import load, load_file

    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER_BYTES:  # the library itself parses a hundred times as much
            raise InputError(
                f"{path} is not a readable safetensors file: its header claims {header:,} bytes, and at most "
                f"{MAX_HEADER_BYTES:,} are read."
            )
        # the library opens no path that is not UTF-8
        return load_file(path) if _is_utf8(path) else load(path.read_bytes())
    except InputError:
        raise
    except Exception as error:  # the library raises its own kind, and torch's for what torch cannot hold
        raise InputError(
            f"{path} is not a readable safetensors file ({str(error)[:200]}); it may be cut short."
        ) from error


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file beside and renames it over."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_beside(path, save(plain))
