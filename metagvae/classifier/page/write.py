"""The page: the runtime, the network and the script in one HTML file that asks nothing of a network."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from importlib import resources
from pathlib import Path

from episodes.errors import printable
from episodes.whole_files import write_beside
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.page.network import onnx_bytes
from metagvae.classifier.page.runtime import VERSION, runtime_files


def packed(data: bytes) -> str:
    """Bytes as text that a script element may hold: their length by gzip, then base 85 with a full stop for ``<``."""
    small = gzip.compress(data, 9, mtime=0)
    return f"{len(small)} {base64.b85encode(small, pad=True).decode().replace('<', '.')}"


def write_page(
    classifier: FewShotClassifier, path: Path, title: str = "A classifier", runtime: Path | None = None
) -> None:
    """Writes a fitted classifier as one HTML file that classifies uploads, drawings and the camera's pictures.

    Args:
        path: the file.
        title: its heading.
        runtime: the folder of onnxruntime-web; None takes the cache, or fetches it once.

    Raises:
        InputError: if the classifier cannot leave, or the runtime cannot be had.
    """
    model, about = onnx_bytes(classifier)
    title = printable(title, lines=False)  # a folder's name may be no text
    about |= {"title": title, "runtime": f"onnxruntime-web {VERSION}"}
    parts = {name: resources.files(__package__).joinpath(name).read_text("utf-8") for name in _PARTS}
    files = runtime_files(runtime)
    texts = {
        "TITLE": html.escape(title),
        "STYLE": parts["page.css"],
        "SCRIPT": parts["preparation.js"] + parts["page.js"],
        "ABOUT": json.dumps(about).replace("<", "\\u003c"),
        "CODE": packed(files["ort.wasm.min.mjs"]),
        "GLUE": packed(files["ort-wasm-simd-threaded.mjs"]),
        "WASM": packed(files["ort-wasm-simd-threaded.wasm"]),
        "MODEL": packed(model),
    }
    pieces = re.split(r"\[\[([A-Z]+)\]\]", parts["page.html"])  # texts and marks in turn
    pieces[1::2] = [texts[mark] for mark in pieces[1::2]]
    write_beside(path, "".join(pieces).encode())


_PARTS = ("page.html", "page.css", "preparation.js", "page.js")
