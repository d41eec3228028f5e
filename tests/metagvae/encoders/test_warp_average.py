"""Averaging over warps, and measuring on prescribed episodes and within an attribute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from episodes import AugmentConfig, Episodes, EpisodeSampler, EpisodeShape, InputError, augment
from episodes.samplers.by_attribute import Within, WithinSampler
from episodes.samplers.prescribed import FixedEpisodes
from metagvae.encoders.controls import Pixels
from metagvae.encoders.warp_average import MILD, WarpAverage
from metagvae.evaluation.results import paired_difference
from metagvae.learners import make_learner
from metagvae.runs.class_families import plain_names
from metagvae.studies.protocol import Head
from tests.support.measuring import encoder, evaluator, noisy


def test_a_pictures_average_depends_on_that_picture_alone() -> None:
    average = WarpAverage(encoder(), 3)
    images = torch.rand(5, 1, 16, 16)
    state = torch.get_rng_state()
    with torch.no_grad():
        whole = average(images)
        alone = torch.cat([average(image.unsqueeze(0)) for image in images])
        assert torch.allclose(whole, alone, atol=1e-5)
        assert not torch.allclose(whole, average.encoder(images), atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    assert average.features == ["backbone"]


def test_it_averages_pixels_of_warped_copies() -> None:
    blob = torch.zeros(1, 1, 16, 16)
    blob[..., 6:10, 6:10] = 1
    average = WarpAverage(Pixels(), 7)(blob).view(16, 16)
    assert average[7, 7] > 0.9
    assert 0 < average[5, 7] < 0.9
    assert average[0].sum() == 0
    with pytest.raises(InputError, match="between 1 and 1,000"):
        WarpAverage(nn.Identity(), 0)


def test_every_second_copy_is_of_the_mirror_image() -> None:
    """Against copies made one by one, and without warps as shares of the image and its mirror image."""
    images, still = torch.rand(3, 1, 16, 16), AugmentConfig()
    for warps, share in ((1, 1 / 2), (2, 1 / 3), (4, 2 / 5)):
        average = WarpAverage(Pixels(), warps, still, mirror=True)(images).view_as(images)
        assert torch.allclose(average, share * images.flip(-1) + (1 - share) * images, atol=1e-5)
    plain, mirrored = (WarpAverage(Pixels(), 2, mirror=mirror)(images) for mirror in (False, True))
    first, second = (
        augment(copy, MILD, torch.Generator().manual_seed(warp))
        for warp, copy in enumerate((images.flatten(0, 1)[None].flip(-1), images.flatten(0, 1)[None]))
    )
    by_hand = (images + first.view_as(images) + second.view_as(images)) / 3
    assert torch.allclose(mirrored, by_hand.flatten(1), atol=1e-5)
    assert not torch.allclose(mirrored, plain, atol=1e-2)
    with pytest.raises(InputError, match=r"--mirror mirrors every second of the --warps copies.*give --warps 8"):
        Head(mirror=True)


def test_prescribed_episodes_are_those_measured() -> None:
    drawn = EpisodeSampler(noisy(), Episodes(EpisodeShape(4, 2, 3), seed=0, stream="test")).span(0, 50)
    learner = make_learner("prototypes", encoder(), 0).eval()
    (usual,) = evaluator().measure("m", learner, [(4, 2)])
    (fixed,) = evaluator(fixed=FixedEpisodes(drawn)).measure("m", learner, [(4, 2)])
    assert fixed.per_run == usual.per_episode.tolist()
    assert usual.per_run is None
    with pytest.raises(InputError, match="prescribes 4-way 2-shot"):
        evaluator(fixed=FixedEpisodes(drawn)).check(5, 1)


def test_within_is_measured_and_named() -> None:
    within = Within("third", same_hands=True)
    learner = make_learner("prototypes", encoder(), 0).eval()
    measuring = evaluator(within=within)
    assert isinstance(measuring.sampler(4, 2), WithinSampler)
    (result,) = measuring.measure("m", learner, [(4, 2)])
    assert result.within == "third, same hands"
    (usual,) = evaluator().measure("m", learner, [(4, 2)])
    with pytest.raises(InputError, match="within is"):
        paired_difference(result, usual)


def test_a_class_of_a_run_has_its_characters_name() -> None:
    assert plain_names(["run01/A/character02", "A/character02/rot090"]) == {"A/character02"}
