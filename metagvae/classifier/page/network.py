"""A fitted classifier as one network: encoder, prototypes, temperature and novelty, and its ONNX file."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from episodes import InputError
from metagvae.classifier.calibration import shortened
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.classifier.label_sets import NONE
from metagvae.encoders.vectors import Vectors

TOLERANCE = 1e-4  # of a probability, and of the novelty against the larger of it and 1
_BATCHES = (1, 7)


class WholeClassifier(nn.Module):
    """Pictures to probabilities and novelty, in float32, as `FewShotClassifier` gives them in float64.

    Args:
        classifier: fitted, with the head ``prototype``. Classes without a picture are left out.

    Raises:
        InputError: if the classifier is not fitted, or has another head.

    Example:
        >>> import numpy as np, torch
        >>> from metagvae import FewShotClassifier
        >>> from metagvae.classifier.page import WholeClassifier
        >>> images = np.zeros((2, 28, 28), dtype=np.uint8)
        >>> images[0, 4:24, 13:15] = images[1, 13:15, 4:24] = 255
        >>> network = WholeClassifier(FewShotClassifier(device="cpu").fit(images, ["upright", "level"]))
        >>> network(torch.rand(3, 1, 28, 28))[0].shape
        torch.Size([3, 2])
    """

    def __init__(self, classifier: FewShotClassifier) -> None:
        super().__init__()
        if not hasattr(classifier, "support_"):
            raise InputError("the classifier is not fitted yet; call fit first.")
        if classifier.head != "prototype":
            raise InputError(f"a classifier leaves with head='prototype'; this one has {classifier.head!r}.")
        if isinstance(classifier.encoder_, Vectors):
            raise InputError("a classifier of ready vectors has no encoder to leave with it; export one of images.")
        support = classifier.support
        counts = support.counts
        present = counts.nonzero().flatten()
        self.classes = [str(classifier.classes_[at]) for at in present.tolist()]
        self.encoder = copy.deepcopy(classifier.encoder_).cpu().float().eval()
        means = torch.stack([support.features[support.labels == at].double().mean(0) for at in present])
        wider = 1 + 1 / counts[present].double()
        calibration = classifier.calibration_
        self.normalise = classifier._prior.normalise if classifier._prior else 0.0
        self.register_buffer("prototypes", means.float())
        self.register_buffer("wider", wider.float())
        self.register_buffer("shift", (calibration.spread * wider.log()).float())
        self.temperature = float(calibration.temperature)
        self.limit = float(calibration.spread * calibration.tail)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``[B, N]`` and novelty ``[B]`` of pictures ``[B, C, H, W]`` in [0, 1]."""
        features = shortened(self.encoder(images), self.normalise)
        gaps = features.unsqueeze(1) - self.get_buffer("prototypes")
        distances = gaps.square().sum(-1) / self.get_buffer("wider")
        logits = -(distances + self.get_buffer("shift")) / self.temperature
        return logits.softmax(1), distances.amin(1) / self.limit


def described(classifier: FewShotClassifier, classes: list[str]) -> dict[str, Any]:
    """Settings beside the network: the classes, and how a picture becomes its input."""
    config, scale = classifier.encoder_.config, classifier.scale_
    threshold = float(classifier.novelty_threshold)
    return {
        "classes": classes,
        "none": NONE if classifier.none_label is None else str(classifier.none_label),
        "threshold": threshold if np.isfinite(threshold) else 1e30,
        "channels": config.channels,
        "size": config.size,
        "polarity": config.polarity,
        "white": scale.eight,
        "invert": scale.invert,
    }


def onnx_bytes(classifier: FewShotClassifier) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file of a fitted classifier, compared with it, and its settings (`described`).

    Raises:
        InputError: if a package is missing, or the file's outputs differ by more than `TOLERANCE`.
    """
    if torch.__version__ < TorchVersion("2.6"):
        raise InputError(f"the export to ONNX needs torch 2.6 or later; this is {torch.__version__}.")
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(
            f"the export needs onnx, onnxscript and onnxruntime ({error}); pip install metagvae[export]."
        ) from error
    network = WholeClassifier(classifier).eval()
    about = described(classifier, network.classes)
    shape = (about["channels"], about["size"], about["size"])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        batch = {0: torch.export.Dim("batch", min=1)}
        traced = torch.export.export(network, (torch.rand(2, *shape),), dynamic_shapes={"images": batch})
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities", "novelty"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"metagvae": json.dumps(about)})
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for count in _BATCHES:
        images = torch.rand(count, *shape, generator=generator)
        with torch.no_grad():
            expected = [part.numpy() for part in network(images)]
        found = session.run(None, {"images": images.numpy()})
        scales = (1.0, np.maximum(1.0, expected[1]))
        worst = max(float(np.max(np.abs(a - b) / scale)) for a, b, scale in zip(found, expected, scales, strict=True))
        if not worst <= TOLERANCE:
            raise InputError(f"the ONNX file differs from the classifier by {worst:.2g}; nothing was written.")
    return data, about


def write_onnx(classifier: FewShotClassifier, path: Path) -> None:
    """Writes a fitted classifier as one ONNX file.

    It takes ``images`` ``[B, C, size, size]`` in [0, 1] and gives ``probabilities`` ``[B, N]`` and ``novelty``
    ``[B]``; the property ``metagvae`` of the model holds the classes, the threshold and the input as JSON.

    Raises:
        InputError: as `onnx_bytes`, or if the file cannot be written.
    """
    from episodes.whole_files import write_beside

    write_beside(path, onnx_bytes(classifier)[0])
