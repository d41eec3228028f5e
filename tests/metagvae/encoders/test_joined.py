"""Several encoders as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from episodes import InputError
from episodes.datasets import make_dataset
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.joined import JoinedEncoder, joined_name, parts
from metagvae.learners import make_learner
from metagvae.learners.joined import join_learners
from metagvae.learners.soft_k_means import SoftKMeans
from metagvae.studies.compare import compare
from metagvae.studies.protocol import Head, Protocol


class Scaled(nn.Module):
    """Pixels times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.flatten(1).relu()


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts("runs/a-seed0+runs/a-seed1") == ["runs/a-seed0", "runs/a-seed1"]
    assert parts("runs/a") == ["runs/a"]
    assert joined_name("runs/a-seed0+elsewhere/b") == "a-seed0+b"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b").mkdir()
    assert parts("a+b") == ["a+b"]
    assert joined_name("a+b") == "a+b"
    for name in ("a+", "+a", "a++b", "a+c+a"):
        with pytest.raises(InputError, match="must join different names"):
            parts(name)


def test_euclidean_logits_are_the_sum_of_each_encoders() -> None:
    pictures = torch.rand(2, 3, 4, 1, 5, 5)
    support, query = pictures[:, :, :1], pictures[:, :, 1:]
    single = [make_learner("prototypes", Scaled(factor), 0) for factor in (1.0, 2.0, 0.5)]
    logits = [learner.predict(learner.adapt(support), query) for learner in single]
    joined = join_learners(single, "a+b+c")
    assert isinstance(joined.encoder, JoinedEncoder)
    torch.testing.assert_close(joined.predict(joined.adapt(support), query), sum(logits))


def test_one_is_left_as_it_is() -> None:
    learner = make_learner("prototypes", Scaled(1.0), 0)
    assert join_learners([learner], "a") is learner


def test_what_cannot_be_joined() -> None:
    prototypes = make_learner("prototypes", Scaled(1.0), 0)
    with pytest.raises(InputError, match="only runs of the same learner"):
        join_learners([prototypes, make_learner("ridge", Scaled(1.0), 0)], "a+b")
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 4))
    network.feature_size = 4  # type: ignore[assignment]
    with pytest.raises(InputError, match="none that belong to one picture alone"):
        join_learners([prototypes, make_learner("maml", network, 3)], "a+b")
    refined = [SoftKMeans(Scaled(1.0), steps=steps) for steps in (1, 20)]
    with pytest.raises(InputError, match="joins heads whose steps is 1 and 20"):
        join_learners(refined, "a+b")
    for name in ("anil", "statistician"):  # their heads are for the features of one
        encoders = [Encoder(EncoderConfig(width=8, latent=6)) for _ in range(2)]
        with pytest.raises(InputError, match="for the features of one encoder"):
            join_learners([make_learner(name, encoder, 3) for encoder in encoders], "a+b")


def test_a_joined_method_is_measured_beside_its_parts() -> None:
    dataset = make_dataset("glyphs")  # drawn once for all tests
    names = ["pixels", "random", "pixels+random"]
    protocol = Protocol([5], [1], episodes=40, split="validation")
    found = {r.method: r for r in compare(dataset, names, protocol=protocol).results}
    assert list(found) == names
    assert found["pixels+random"].per_episode.tolist() not in (
        found["pixels"].per_episode.tolist(),
        found["random"].per_episode.tolist(),
    )
    with pytest.raises(InputError, match="nothing"):
        compare(dataset, ["pixels+nothing"], protocol=protocol)


def test_votes_count_squared_distances_of_parts_of_one_length() -> None:
    pictures = torch.rand(6, 1, 5, 5)
    joined = JoinedEncoder([Scaled(100.0), Scaled(0.01)], votes=[0.3, 1.0])(pictures)
    unit = torch.nn.functional.normalize(pictures.flatten(1), dim=1)
    torch.testing.assert_close(torch.cdist(joined, joined) ** 2, 1.3 * torch.cdist(unit, unit) ** 2)
    torch.testing.assert_close(joined[:, :25].norm(dim=1), torch.full((6,), 0.3).sqrt())


@pytest.mark.parametrize("votes", [[1.0], [1.0, 1.0, 1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], []])
def test_votes_that_do_not_fit_the_parts(votes: list[float]) -> None:
    learners = [make_learner("prototypes", Scaled(factor), 0) for factor in (1.0, 2.0)]
    with pytest.raises(InputError, match=r"a\+b joins 2 encoders, and votes gives each a weight above 0; received "):
        join_learners(learners, "a+b", votes)


def test_votes_without_a_joined_encoder() -> None:
    with pytest.raises(InputError, match="--votes weighs the parts of a joined encoder"):
        compare(make_dataset("glyphs"), ["pixels"], head=Head(votes=[1.0, 1.0]))
