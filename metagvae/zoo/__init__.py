"""Names in, trained things out: shipped encoders, folders, runs, the Hub, other packages' networks."""

from metagvae.zoo.card import EncoderCard
from metagvae.zoo.generators import refined_generator, save_generator
from metagvae.zoo.hub import push_to_hub
from metagvae.zoo.load import installed_encoders, save_encoder, shipped_encoders
from metagvae.zoo.trained import Trained, load_encoder, open, read_card

__all__ = [
    "EncoderCard",
    "Trained",
    "installed_encoders",
    "load_encoder",
    "open",
    "push_to_hub",
    "read_card",
    "refined_generator",
    "save_encoder",
    "save_generator",
    "shipped_encoders",
]
