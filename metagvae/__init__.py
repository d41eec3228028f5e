"""Few-shot meta-learning with guided variational autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from metagvae.checkpoints import load_encoder, save_encoder
    from metagvae.classifier import FewShotClassifier
    from metagvae.decoders import Decoder
    from metagvae.encoder import Encoder, EncoderConfig
    from metagvae.vae import GuidedVAE

_HOMES = {
    "FewShotClassifier": "metagvae.classifier",
    "load_encoder": "metagvae.checkpoints",
    "save_encoder": "metagvae.checkpoints",
    "Encoder": "metagvae.encoder",
    "EncoderConfig": "metagvae.encoder",
    "Decoder": "metagvae.decoders",
    "GuidedVAE": "metagvae.vae",
}
__all__ = ["Decoder", "Encoder", "EncoderConfig", "FewShotClassifier", "GuidedVAE", "load_encoder", "save_encoder"]


def __getattr__(name: str) -> Any:
    # loaded on first use, so that `import metagvae` costs next to nothing
    if name in _HOMES:
        from importlib import import_module

        from episodes import collector_paused

        with collector_paused():
            return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'metagvae' has no attribute {name!r}")
