"""Learners on frozen encoders."""

import pytest
import torch

from episodes import ImageBank
from metagvae.studies.methods import encoder_learner
from metagvae.studies.protocol import Head


@pytest.mark.parametrize("name", ["prototypes", "soft-k-means"])
def test_heads_by_distance_take_features_at_the_length_that_the_card_asks_for(name: str) -> None:
    bank = ImageBank(
        torch.zeros(4, 3, 84, 84, dtype=torch.uint8), torch.tensor([0, 2, 4]), ("a", "b"), polarity="light"
    )
    assert encoder_learner("photos", bank, bank, Head(name)).normalise == 1
    assert encoder_learner("photos", bank, bank, Head(name, {"normalise": 0.5})).normalise == 0.5
