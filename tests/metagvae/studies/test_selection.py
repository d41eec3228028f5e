"""Choosing without labels: votes against a loop, planted consensus, invariances, and the command."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.distributions import Normal

from episodes import ImageBank, InputError
from metagvae.cli import main
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, VAESection
from metagvae.encoders.controls import Pixels
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.evaluation.centrality import Agreement, above_chance, held_out_accuracy, least_varying
from metagvae.evaluation.results import interval
from metagvae.evaluation.udr import likeness, one_to_one, udr
from metagvae.guidance import GuidanceContext
from metagvae.studies.selection import CRITERIA, Selection, agree, elbos, live_units, select, traversals, view_errors
from metagvae.training.pretraining import pretrain
from metagvae.vae.decoders import Decoder
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import StandardNormal

UNITS = 6


class Linear(GuidedVAE):
    """A model whose images are its latents under an orthogonal matrix, and whose encoder undoes that."""

    def __init__(self, matrix: np.ndarray, live: int = UNITS) -> None:
        nn.Module.__init__(self)
        self.matrix, self.alive = torch.from_numpy(matrix).float(), live
        self.prior = StandardNormal(GuidanceContext(1, 1, {"content": list(range(len(matrix)))}))

    def decode(self, z: Tensor) -> Tensor:
        z = torch.cat((z[:, : self.alive], torch.zeros_like(z[:, self.alive :])), 1)
        return (z @ self.matrix)[:, None, None]

    def infer(self, images: Tensor) -> Posterior:
        mean = images.flatten(1) @ self.matrix.T
        return Posterior(mean, torch.zeros_like(mean))

    def kl_of_units(self, posterior: Posterior) -> Tensor:
        return (torch.arange(posterior.mean.shape[1]) < self.alive).float()


def axes(seed: int) -> np.ndarray:
    """The same axes in another order and with other signs."""
    rng = np.random.default_rng(seed)
    return np.eye(UNITS)[rng.permutation(UNITS)] * rng.choice([-1, 1], UNITS)[:, None]


def turned() -> np.ndarray:
    """Axes at 45 degrees to the others, in three planes."""
    half = np.sqrt(0.5)
    return np.kron(np.eye(UNITS // 2), np.array([[half, half], [-half, half]]))


def every(count: int) -> list[np.ndarray]:
    return [np.arange(UNITS)] * count


def test_votes_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(40 * 9, 5)) * [1, 5, 0.1, 2, 1]
    live = np.array([0, 1, 3])
    expected = []
    whole = [np.mean((codes[:, u] - codes[:, u].mean()) ** 2) for u in live]
    for group in range(40):
        rows = codes[group * 9 : group * 9 + 9]
        ratios = [np.mean((rows[:, u] - rows[:, u].mean()) ** 2) / w for u, w in zip(live, whole, strict=True)]
        expected.append(int(np.argmin(ratios)))
    votes = least_varying(codes, 40, live)
    assert votes.tolist() == expected
    # held-out majorities, by a loop
    shared = np.arange(40) % 3
    halves: dict[int, list[int]] = {0: [], 1: []}
    for unit in range(3):
        rows_of = [g for g in range(40) if shared[g] == unit]
        halves[0] += rows_of[: len(rows_of) // 2]
        halves[1] += rows_of[len(rows_of) // 2 :]
    right = 0
    for part in (0, 1):
        for group in halves[part]:
            seen = [shared[g] for g in halves[1 - part] if votes[g] == votes[group]]
            right += bool(seen) and int(np.bincount(seen).argmax()) == shared[group]
    assert held_out_accuracy(votes, shared) == right / 40


def test_a_vote_changes_with_no_order_sign_or_scale_of_units() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(30 * 8, UNITS))
    for group in range(30):
        codes[group * 8 : group * 8 + 8, group % UNITS] = rng.normal()
    votes = least_varying(codes, 30, np.arange(UNITS))
    order = rng.permutation(UNITS)
    changed = codes[:, order] * (rng.choice([-1, 1], UNITS) * 10.0 ** rng.integers(-3, 4, UNITS))
    again = least_varying(changed, 30, np.arange(UNITS))
    assert np.array_equal(order[again], votes)
    shared = np.arange(30) % UNITS
    assert held_out_accuracy(again, shared) == held_out_accuracy(votes, shared) == 1


def test_a_planted_consensus_is_found() -> None:
    models = [Linear(axes(0)), Linear(axes(1)), Linear(turned()), Linear(axes(2)), Linear(axes(3))]
    found = agree(models, every(5), 60, 32, 0)
    assert found.centrality.argmin() == 2
    assert found.centrality.max() > 2 * found.centrality[2]
    assert np.allclose(found.corrected.diagonal(), 1)
    assert found.recognises_itself
    others = [0, 1, 3, 4]
    assert np.allclose(found.corrected[np.ix_(others, others)], 1)
    # the order of the runs changes no run's number, and a run's own entry is not used
    back = agree(models[::-1], every(5), 60, 32, 0)
    assert np.allclose(back.centrality[::-1], found.centrality, atol=0.1)
    assert back.centrality.argmin() == 2
    without = Agreement(found.corrected - np.diag(found.corrected.diagonal()), found.error)
    assert np.allclose(without.centrality, found.centrality)


def test_a_unit_that_never_varies_has_no_vote_and_warns_of_nothing() -> None:
    codes = np.random.default_rng(0).normal(size=(40, 3))
    codes[:, 1] = 0.0
    with np.errstate(all="raise"):
        votes = least_varying(codes, 10, np.arange(3))
        assert set(votes) <= {0, 2}
        assert set(least_varying(np.zeros((40, 2)), 10, np.arange(2))) == {0}


def test_an_encoder_that_knows_nothing_is_at_chance() -> None:
    class Deaf(Linear):
        def infer(self, images: Tensor) -> Posterior:
            mean = torch.randn(len(images), UNITS, generator=torch.Generator().manual_seed(len(images)))
            return Posterior(mean, torch.zeros_like(mean))

    found = agree([Deaf(np.eye(UNITS)), Deaf(axes(1))], every(2), 300, 16, 0)
    assert np.abs(found.corrected).max() < 4 * found.error.max()
    assert not found.recognises_itself


def test_idle_units_win_nothing() -> None:
    assert above_chance(0.5, 2) == 0  # guessing one of two
    assert above_chance(1.0, 1) == 0  # a single unit has nothing to tell apart
    assert above_chance(1.0, 8) == 1
    two, all_live = Linear(np.eye(UNITS), live=2), [Linear(axes(seed)) for seed in (1, 2, 3)]
    live = [live_units(model, torch.rand(4, 1, 1, UNITS)) for model in (two, *all_live)]
    assert [len(units) for units in live] == [2, 6, 6, 6]
    found = agree([two, *all_live], live, 60, 32, 0)
    assert found.centrality.argmin() == 0  # two live units of six do not beat six
    one = [np.arange(1), np.arange(UNITS)]
    alone = agree([Linear(np.eye(UNITS), live=1), Linear(axes(1))], one, 60, 16, 0)
    assert not alone.corrected[:, 0].any()


def test_the_images_of_a_group_share_their_unit_alone() -> None:
    model = Linear(np.eye(UNITS))
    drawn = traversals(model, np.array([0, 3, 5, 0]), 7, 0).view(4, 7, UNITS)
    varies = drawn.std(1) > 1e-6
    assert varies.logical_not().nonzero().tolist() == [[0, 0], [1, 3], [2, 5], [3, 0]]
    assert torch.equal(drawn, traversals(model, np.array([0, 3, 5, 0]), 7, 0).view(4, 7, UNITS))


def test_udr_is_what_scipy_and_scikit_learn_say() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200, 3))
    other = np.stack([-(one[:, 1] ** 3), one[:, 0] + one[:, 2]], 1) + 0.1 * rng.normal(size=(200, 2))
    ranks = likeness(one, other, "spearman")
    for a in range(3):
        for b in range(2):
            assert ranks[a, b] == pytest.approx(abs(spearmanr(one[:, a], other[:, b])[0]), abs=1e-9)
    weights = likeness(one, other, "lasso")
    x, y = (one - one.mean(0)) / one.std(0), (other - other.mean(0)) / other.std(0)
    assert np.allclose(weights[:, 1], np.abs(Lasso(alpha=0.1).fit(x, y[:, 1]).coef_))
    assert one_to_one(np.eye(4)) == pytest.approx(1)
    assert one_to_one(np.ones((2, 2))) == pytest.approx(0.5)
    assert one_to_one(np.zeros((2, 3))) == 0
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for kind in ("lasso", "spearman"):
        scores = udr([one, one[:, ::-1] * [-1, 5, 2], one @ turn, one], kind)
        assert scores.argmin() == 2, kind


def small(folder: Path, seed: int, **changed: object) -> str:
    pretrain(
        PretrainConfig(
            data=DataConfig("pendulum", size=16),
            encoder=EncoderSection(backbone="patches", width=8, latent=4),
            vae=VAESection(decoder="patches", decoder_width=4, **changed),  # type: ignore[arg-type]
            batch=16,
            optim=OptimSection(steps=3),
            run=RunSection(folder=str(folder), device="cpu", seed=seed),
        )
    )
    return str(folder)


def test_lasso_ends_where_units_say_the_same() -> None:
    """Eight copies of one unit, nearly: the optimality conditions hold, and no warning reaches the terminal."""
    chance = np.random.default_rng(1)
    factor = chance.normal(size=(300, 1))
    one, other = factor + 0.005 * chance.normal(size=(300, 8)), factor + 0.5 * chance.normal(size=(300, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = likeness(one, other, "lasso")[:, 0]
    x, y = ((codes - codes.mean(0)) / codes.std(0) for codes in (one, other))
    slopes = x.T @ (y[:, 0] - x @ weights) / 300
    assert np.all(slopes < 0.1 + 1e-3)
    assert np.allclose(slopes[weights > 0], 0.1, atol=1e-3)
    assert weights.sum() > 0.5


def test_the_command_chooses_links_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [small(tmp_path / f"run{seed}", seed) for seed in range(2)]
    graph = {"angle": [], "light": ["angle"]}
    runs.append(small(tmp_path / "causal", 0, prior={"name": "causal_flow", "graph": graph, "units": 2}))
    link, out, figure = tmp_path / "chosen", tmp_path / "s.json", tmp_path / "f.png"
    words = ["select", *runs, "--groups", "24", "--images", "4", "--device", "cpu"]
    assert main([*words, "--link", str(link), "--json", str(out), "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found["values"]) == set(CRITERIA)
    assert all(len(values) == 3 for values in found["values"].values())
    best = runs[int(np.argmin(found["values"]["views"]))]
    assert f"chosen by error on warped images, %: {best}" in said
    assert link.resolve() == Path(best).resolve()
    assert figure.stat().st_size > 1000
    assert main([*words, "--by", "elbo", "--link", str(link), "--json", str(out)]) == 0
    capsys.readouterr()
    assert json.loads(out.read_text())["values"] == found["values"]  # a pure function of runs, images and seed
    assert link.resolve() == Path(runs[int(np.argmax(found["values"]["elbo"]))]).resolve()
    for given, says in (
        ([*words, "--by", "luck"], "--by must be one of views, centrality"),
        (["select", runs[0]], "needs two runs or more"),
        (["select", runs[0], runs[0]], "needs two runs or more, each once"),
        ([*words, "--link", str(tmp_path / "run0")], "something else than a link is there"),
        ([*words, "--data", "glyphs"], "takes pictures of 3 channel"),
        (["select", runs[0], f"{tmp_path}/../{tmp_path.name}/run0"], "needs two runs or more, each once"),
        ([*words, "--seed", "-1"], "--seed must be between 0"),
        ([*words, "--seed", "9" * 23], "--seed must be between 0"),
        ([*words, "--link", str(out / "chosen")], "cannot be made"),
    ):
        assert main(given) == 2
        assert says in capsys.readouterr().err


def test_images_that_a_run_was_trained_on_are_refused_and_others_of_its_classes_are_not(tmp_path: Path) -> None:
    runs = [small(tmp_path / f"run{seed}", seed) for seed in range(2)]
    seen, unseen = (DataConfig("pendulum", size=16).make().load(split) for split in ("train", "validation"))
    with pytest.raises(InputError, match=r"run0 was trained on images of 14 of the 14 classes of the validation split"):
        select(runs, replace(seen, split="validation"))
    classes = unseen.num_classes  # as a folder of unlabelled images has one class in every split
    namesakes = replace(unseen, class_names=seen.class_names[:classes])
    found = select(runs, namesakes, groups=20, images=2)
    assert found.values == select(runs, unseen, groups=20, images=2).values


@pytest.mark.parametrize("count", [2, 18, 20, 21, 39, 60])
def test_errors_on_views_spread_over_episodes_however_few_the_images_are(count: int) -> None:
    images = 0.3 + 0.1 * torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    errors = view_errors(Pixels(), images, 0, 40)
    assert np.array_equal(errors, view_errors(Pixels(), images, 0, 40))
    assert 0 < errors.mean() < 1
    assert interval(errors) > 0


def test_the_interval_of_few_images_is_that_of_other_seeds() -> None:
    images = 0.3 + 0.1 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = [view_errors(Pixels(), images, seed, 40) for seed in range(12)]
    spread = 1.96 * np.std([errors.mean() for errors in found], ddof=1)
    assert 0.5 < spread / np.mean([interval(errors) for errors in found]) < 2


def test_one_image_has_no_error_on_views_nor_have_features_that_are_not_finite() -> None:
    with pytest.raises(InputError, match="needs 2 images or more, to tell apart; received 1"):
        view_errors(Pixels(), torch.rand(1, 1, 8, 8), 0)
    with pytest.raises(InputError, match="2 images or more"):
        select(["one", "other"], ImageBank.from_classes([("a", torch.zeros(1, 1, 8, 8).byte())], dataset="one"))
    with pytest.raises(InputError, match="not finite"):
        view_errors(nn.Sequential(nn.Flatten(), nn.Threshold(9, torch.nan)), torch.rand(4, 1, 8, 8), 0)


def test_a_pool_that_does_not_know_itself_chooses_nothing_by_agreement() -> None:
    blind = Agreement(np.zeros((3, 3)), np.full(3, 0.05))
    found = Selection(["a", "b", "c"], {"centrality": [0.1, 0.2, 0.0], "views": [0.3, 0.2, 0.1]}, blind, [2, 2, 2])
    assert "do not recognise their own traversals (0.00" in found.table()
    with pytest.raises(InputError, match=r"cannot tell.*Choose by another"):
        found.best("centrality")
    assert found.best("views") == 2
    sure = Agreement(np.eye(3), np.full(3, 0.05))
    assert Selection(found.names, found.values, sure, [2, 2, 2]).best("centrality") == 1


def test_the_elbo_has_its_constants_and_says_nothing_of_unlike_likelihoods() -> None:
    """The same network under a Gaussian: the best deviation is that of its errors, not the widest."""
    torch.manual_seed(0)
    vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=4)), Decoder(4, 1, 28, 8), likelihood="gaussian")
    with torch.no_grad():
        images = vae.reconstruct(torch.rand(32, 1, 28, 28))
        images = (images + 0.1 * torch.randn_like(images)).clamp(0, 1)
        vae.encoder.to_log_var.weight.zero_()
        vae.encoder.to_log_var.bias.fill_(-20.0)
        found = {}
        for sigma in (0.02, 0.1, 0.5):
            vae.sigma = sigma
            error = Normal(vae.decode(vae.infer(images).mean), sigma)
            expected = error.log_prob(images).flatten(1).sum(1) - vae.kl(vae.infer(images))
            found[sigma] = elbos([vae], images, 0)[0]
            assert found[sigma] == pytest.approx(float(expected.mean()), rel=1e-3)
    assert max(found, key=lambda sigma: found[sigma]) == 0.1
    other = GuidedVAE(Encoder(EncoderConfig(width=8, latent=4)), Decoder(4, 1, 28, 8))
    unlike = elbos([vae, other], images, 0)
    assert np.isnan(unlike).all()
    agreement = Agreement(np.eye(2), np.full(2, 0.1))
    values = {by: [0.0, 1.0] for by in CRITERIA}
    none = Selection(["a", "b"], {**values, "elbo": unlike}, agreement, [4, 4])
    assert none.plain()[0]["ELBO, nats"] == "–"
    with pytest.raises(InputError, match="ELBO, nats cannot be compared"):
        none.best("elbo")
    assert Selection(["a", "b"], {**values, "elbo": [np.nan, -10.0]}, agreement, [4, 4]).best("elbo") == 1
