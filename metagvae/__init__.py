"""Few-shot meta-learning with guided variational autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from metagvae.classifier.estimator import FewShotClassifier
    from metagvae.encoders.encoder import Encoder, EncoderConfig
    from metagvae.vae.decoders import Decoder
    from metagvae.vae.guided_vae import GuidedVAE
    from metagvae.zoo.hub import push_to_hub
    from metagvae.zoo.load import save_encoder
    from metagvae.zoo.trained import load_encoder

_HOMES = {
    "FewShotClassifier": "metagvae.classifier.estimator",
    "load_encoder": "metagvae.zoo.trained",
    "save_encoder": "metagvae.zoo.load",
    "push_to_hub": "metagvae.zoo.hub",
    "Encoder": "metagvae.encoders.encoder",
    "EncoderConfig": "metagvae.encoders.encoder",
    "Decoder": "metagvae.vae.decoders",
    "GuidedVAE": "metagvae.vae.guided_vae",
}
__all__ = [
    "Decoder",
    "Encoder",
    "EncoderConfig",
    "FewShotClassifier",
    "GuidedVAE",
    "load_encoder",
    "push_to_hub",
    "save_encoder",
]


def _version() -> str:
    """The installed package's version; of a source tree that was never installed, ``0+source``."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("metagvae")
    except PackageNotFoundError:
        return "0+source"


def __getattr__(name: str) -> Any:
    # loaded on first use, so that `import metagvae` costs next to nothing
    if name in _HOMES:
        from importlib import import_module

        from episodes import collector_paused

        with collector_paused():
            return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'metagvae' has no attribute {name!r}")
