"""Encoders for other programs: ONNX and torch.export, each compared with the module before it is kept."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from episodes import InputError
from episodes.whole_files import write_beside
from metagvae.encoders.encoder import Encoder
from metagvae.encoders.norm import norm_policy

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-4  # of the largest difference from the module, in units of the features' standard deviation or of 1
_BATCHES = (1, 37)

Ask = Callable[[Tensor], Tensor]


def export_to(encoder: Encoder, path: Path, to: str) -> float:
    """Writes an encoder whose batch is of any size, and returns its largest difference from the module.

    The file takes pictures ``[B, channels, size, size]`` in [0, 1] and gives what a call of the encoder gives.

    Args:
        path: the file; its folder must be there.
        to: ``onnx`` (checked with onnxruntime) or ``torch-export`` (`torch.export.load` reads it).

    Raises:
        InputError: if a package is missing, the encoder needs to know tasks (norm ``support``, ``transductive``), the
            file's outputs differ by more than `TOLERANCE`, or it cannot be written; no file is left then.
    """
    if to not in FORMATS:
        raise InputError(f"an encoder is exported to {', '.join(FORMATS)} or safetensors; received {to!r}.")
    if path.suffix != FORMATS[to]:
        raise InputError(f"a file for {to} ends in {FORMATS[to]}; received {path}.")
    if norm_policy(encoder) in ("support", "transductive"):
        raise InputError(
            f"the encoder's norm policy is '{norm_policy(encoder)}': what it gives depends on which pictures are of "
            "one task, which a file of a single network cannot know. Export one with 'running' or 'group'."
        )
    if not encoder.exportable:
        raise InputError(
            f"an encoder of kind '{encoder.name}' takes gradient steps at every call, which {to} cannot hold. Export "
            "the encoder that it refines."
        )
    module = copy.deepcopy(encoder).eval().cpu().float()
    config = module.config
    data, ask = (_onnx if to == "onnx" else _torch_export)(module)
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch in _BATCHES:
        images = torch.rand(batch, config.channels, config.size, config.size, generator=generator)
        with torch.no_grad():
            expected = module(images)
        received = ask(images)
        if received.shape != expected.shape:
            raise InputError(f"{to} gives {list(received.shape)} instead of {list(expected.shape)}; not written.")
        scale = max(1.0, float(expected.std()))
        worst = max(worst, float((received - expected).abs().max()) / scale)
    if not worst <= TOLERANCE:
        raise InputError(f"{to} differs from the module by {worst:.2g}, more than {TOLERANCE}; nothing was written.")
    write_beside(path, data)
    return worst


def _traced(module: Encoder) -> torch.export.ExportedProgram:
    config = module.config
    example = torch.rand(2, config.channels, config.size, config.size)
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}})


def _torch_export(module: Encoder) -> tuple[bytes, Ask]:
    """The file's content, and what asks a network that was read from it."""
    buffer = io.BytesIO()  # a disk that is full ends the process in torch's own writer
    torch.export.save(_traced(module), buffer)
    data = buffer.getvalue()
    again = torch.export.load(io.BytesIO(data)).module()
    return data, lambda images: again(images).detach()


def _onnx(module: Encoder) -> tuple[bytes, Ask]:
    """The file's content, and what asks a network that was read from it."""
    if torch.__version__ < TorchVersion("2.6"):
        raise InputError(f"the export to ONNX needs torch 2.6 or later; this is {torch.__version__}. Use torch-export.")
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(
            f"the export to ONNX needs onnx, onnxscript and onnxruntime ({error}); pip install metagvae[export]."
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _traced(module), dynamo=True, input_names=["images"], output_names=["features"], verbose=False
        )
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda images: torch.from_numpy(np.asarray(session.run(None, {"images": images.numpy()})[0]))
