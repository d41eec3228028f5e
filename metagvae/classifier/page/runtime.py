"""onnxruntime-web (Microsoft, MIT licence), the runtime inside the page: fetched once, known by its hashes."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.request
from pathlib import Path

from episodes import InputError
from episodes.datasets.cache import cache_folder
from episodes.whole_files import write_beside
from metagvae.storage.atomic_files import make_folder

VERSION = "1.22.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = {
    "ort.wasm.min.mjs": "6ef726f355b791129f7ddf3f62e7877a16b9b777abe87004b8ab306e6b9cf265",
    "ort-wasm-simd-threaded.mjs": "30dd851d9c00622940500f71ddd2ff8820c5cb65270816080175b958705385a8",
    "ort-wasm-simd-threaded.wasm": "71aef04959c5c1b6de461b6538e2058e306610034a85aad2742d0c7fd4533fe4",
}
_MOST = 64 * 2**20  # bytes of the package
_PATIENCE = 60.0  # seconds of silence


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """The runtime's files by name: from a folder, else from the cache, else fetched into it.

    Args:
        folder: where the package onnxruntime-web was unpacked, or its ``dist``.

    Raises:
        InputError: if they are not there and cannot be fetched, or are others than those pinned.
    """
    if folder is not None:
        return {name: _checked(_found(folder, name), name) for name in SHA256}
    kept = cache_folder() / f"onnxruntime-web-{VERSION}"
    if not all((kept / name).is_file() for name in SHA256):
        files = _fetched()
        make_folder(kept)
        for name, data in files.items():
            write_beside(kept / name, data)
    return {name: _checked(kept / name, name) for name in SHA256}


def _found(folder: Path, name: str) -> Path:
    places = [folder / name, folder / "dist" / name, folder / "package" / "dist" / name]
    return next((place for place in places if place.is_file()), places[0])


def _checked(path: Path, name: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give the folder of onnxruntime-web {VERSION}: --runtime FOLDER."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        raise InputError(
            f"{path} is not that of onnxruntime-web {VERSION}: its SHA-256 is {found}, and should be {SHA256[name]}. "
            f"Remove it, or give the folder of that version: --runtime FOLDER."
        )
    return data


def _fetched() -> dict[str, bytes]:
    try:
        with urllib.request.urlopen(ADDRESS, timeout=_PATIENCE) as answer:
            data = answer.read(_MOST + 1)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            opened = {name: archive.extractfile(f"package/dist/{name}") for name in SHA256}
            files = {name: file.read(_MOST) for name, file in opened.items() if file is not None}
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        raise InputError(
            f"the page's runtime, {ADDRESS}, cannot be fetched ({error}). Where there is a network, fetch and unpack "
            "it (npm pack onnxruntime-web), and give its folder: --runtime FOLDER."
        ) from error
    wrong = [name for name in SHA256 if hashlib.sha256(files.get(name, b"")).hexdigest() != SHA256[name]]
    if wrong:
        raise InputError(f"{ADDRESS} holds another {wrong[0]} than the one that was tested; nothing was kept.")
    return files
