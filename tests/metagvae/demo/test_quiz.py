"""The quiz: a round's images, answers and score, and what the tab Drawn shows."""

from __future__ import annotations

import pytest
import torch

from episodes import ImageBank, InputError
from metagvae import Decoder, Encoder, EncoderConfig, GuidedVAE
from metagvae.demo.generating import ACROSS, DOWN, drawn_samples, drawn_units
from metagvae.demo.quiz import EACH, TEMPERATURE, Quiz, Tally
from metagvae.vae.synthesis import Synthesis


def made(polarity: str = "ink") -> Quiz:
    torch.manual_seed(0)
    vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=6, polarity=polarity)), Decoder(6, 1, 28, 8))
    images = torch.full((3, 20, 1, 28, 28), 255, dtype=torch.uint8)  # real ones are white all over
    bank = ImageBank.from_classes([(str(i), x) for i, x in enumerate(images)], dataset="white", polarity=polarity)
    return Quiz(vae, bank)


def test_a_round_is_half_real_in_an_order_of_its_own() -> None:
    quiz = made()
    images, real = quiz.round(3)
    assert images.shape == (2 * EACH, 1, 28, 28)
    assert int(real.sum()) == EACH
    assert torch.equal((images == 1).flatten(1).all(1), real)
    assert torch.equal(images, quiz.round(3)[0])
    assert not torch.equal(real, quiz.round(4)[1])
    assert torch.allclose(255 * images, (255 * images).round(), atol=1e-4)  # drawn ones are 8-bit too
    sharp = Synthesis(quiz.vae, TEMPERATURE, 3).samples(EACH).images[0]
    assert torch.allclose(images[~real].mean(0), sharp.mean(0), atol=0.5 / 255)


def test_answers_are_scored_and_a_finished_round_takes_no_more() -> None:
    quiz, tally = made(), Tally()
    real = quiz.round(0)[1].tolist()
    for truth in real[:-1]:
        tally, said = quiz.answer(0, tally, truth)
        assert said.startswith("Right")
    tally, said = quiz.answer(0, tally, not real[-1])
    assert said.startswith("No, it was")
    assert tally == Tally(2 * EACH, 2 * EACH - 1, int(not real[-1]))
    assert "98 %" in said
    assert quiz.answer(0, tally, True)[0] == tally
    everything = Tally()
    for _ in real:
        everything, _ = quiz.answer(0, everything, True)
    assert everything == Tally(2 * EACH, EACH, EACH)


def test_ink_is_shown_dark() -> None:
    place = int(made().round(0)[1].long().argmax())
    assert made().show(0, place).max() == 0
    assert made("light").show(0, place).min() == 255


def test_images_of_another_shape_are_refused() -> None:
    quiz = made()
    small = ImageBank.from_classes([("a", torch.zeros(30, 1, 16, 16, dtype=torch.uint8))], dataset="small")
    with pytest.raises(InputError, match="the quiz needs 20 real images"):
        Quiz(quiz.vae, small)


def test_what_the_tab_shows_is_a_function_of_the_seed() -> None:
    quiz = made()
    one = drawn_samples(quiz, 0, TEMPERATURE)
    assert one.shape == (3 * DOWN * 30, 3 * ACROSS * 30, 3)
    assert (one == drawn_samples(quiz, 0, TEMPERATURE)).all()
    assert (one != drawn_samples(quiz, 1, TEMPERATURE)).any()
    assert drawn_units(quiz, 0, TEMPERATURE).shape[0] == 3 * 6 * 30
