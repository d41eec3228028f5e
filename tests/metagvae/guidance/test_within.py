"""An attribute within another: the drawer among those of the alphabet goes, and the alphabet stays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from episodes import InputError
from metagvae.encoders.encoder import Posterior
from metagvae.guidance import ExcitationInhibition, GuidanceContext, GuidanceInputs, assign_units

ALPHABETS, DRAWERS, LATENT = 4, 3, 10
SIZES = {"alphabet": ALPHABETS, "drawer": DRAWERS}
UNITS = assign_units([{"name": "excitation_inhibition", "attributes": {"drawer": 2}}], LATENT)
CONTEXT = GuidanceContext(1, 28, UNITS, SIZES)


def guided(**options: object) -> ExcitationInhibition:
    torch.manual_seed(0)
    return ExcitationInhibition(CONTEXT, {"drawer": 2}, **{"within": {"drawer": "alphabet"}, **options})  # type: ignore[arg-type]


def inputs(z: Tensor, **labels: Tensor) -> GuidanceInputs:
    return GuidanceInputs(torch.zeros(len(z), 1, 28, 28), Posterior(z, z), z, torch.nn.Identity(), labels)


def labels(rows: int) -> dict[str, Tensor]:
    number = torch.arange(rows)
    return {"alphabet": number % ALPHABETS, "drawer": number // ALPHABETS % DRAWERS}


@pytest.mark.parametrize("form", ["confusion", "adversarial"])
def test_its_terms_are_those_of_a_classifier_for_each_alphabet(form: str) -> None:
    guidance, z, known = guided(form=form), 3 * torch.randn(48, LATENT), labels(48)
    rest = z[:, guidance.rest["drawer"]]
    with torch.no_grad():
        whole = guidance.adversaries["drawer"]
        each = []  # of every image the cross entropy by its alphabet's own last layer
        for row, alphabet, drawer in zip(rest, known["alphabet"], known["drawer"], strict=True):
            rows = slice(int(alphabet) * DRAWERS, (int(alphabet) + 1) * DRAWERS)
            logits = whole[2].weight[rows] @ whole[0](row).relu() + whole[2].bias[rows]
            entropy = -F.log_softmax(logits, 0)
            each.append((entropy[drawer], entropy.mean()))
        told, uniform = torch.tensor(each).mean(0)
    terms = guidance(inputs(z, **known))
    assert float(terms["adversary/drawer"].detach()) == pytest.approx(float(told), rel=1e-5)
    most = float(torch.tensor(float(DRAWERS)).log())
    expected = float(uniform) - most if form == "confusion" else max(0.0, most - float(told))
    assert float(terms["inhibition/drawer"].detach()) == pytest.approx(10 * expected, rel=1e-4, abs=1e-6)


def test_one_alphabet_for_all_is_the_plain_guidance() -> None:
    sizes = {"alphabet": 1, "drawer": DRAWERS}
    z, known = torch.randn(24, LATENT), labels(24) | {"alphabet": torch.zeros(24).long()}
    found = []
    for within in (None, {"drawer": "alphabet"}):
        torch.manual_seed(0)
        guidance = ExcitationInhibition(GuidanceContext(1, 28, UNITS, sizes), {"drawer": 2}, within=within)
        found.append(guidance(inputs(z, **known)))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("unknown", ["alphabet", "drawer"])
def test_an_image_of_unknown_alphabet_or_drawer_takes_no_part(unknown: str) -> None:
    guidance, z, known = guided(), torch.randn(24, LATENT), labels(24)
    kept = torch.arange(24) % 5 > 0
    left = known | {unknown: known[unknown].masked_fill(~kept, -1)}
    both = guidance(inputs(z, **left)), guidance(inputs(z[kept], **{name: each[kept] for name, each in known.items()}))
    for name in both[0]:
        torch.testing.assert_close(both[0][name], both[1][name])


def accuracy(codes: Tensor, wanted: Tensor) -> float:
    """Of scikit-learn's linear classifier on half of the rows, asked about the other half."""
    codes = (codes - codes.mean(0)) / codes.std(0)
    half = len(codes) // 2
    return float(LogisticRegression(max_iter=500).fit(codes[:half], wanted[:half]).score(codes[half:], wanted[half:]))


def drawer_within_alphabet(codes: Tensor, known: dict[str, Tensor]) -> float:
    each = [known["alphabet"] == value for value in range(ALPHABETS)]
    return sum(accuracy(codes[rows], known["drawer"][rows]) for rows in each) / ALPHABETS


def test_the_drawer_goes_and_the_alphabet_stays_as_it_does_not_with_plain_inhibition() -> None:
    """Codes tell both: alphabets in four units, and in two others what each alphabet's own drawers do."""
    torch.manual_seed(1)
    rows = 480
    known = {name: each[torch.randperm(rows)] for name, each in labels(rows).items()}
    start = 0.3 * torch.randn(rows, LATENT)
    start[:, 2:6] += 2 * F.one_hot(known["alphabet"], ALPHABETS)
    shift = torch.randn(ALPHABETS, DRAWERS, 2)
    shift = 1.5 * (shift - shift.mean(1, keepdim=True)) / shift.std((1, 2), keepdim=True)
    start[:, 6:8] += shift[known["alphabet"], known["drawer"]]
    assert drawer_within_alphabet(start[:, 2:] + 0.5 * torch.randn(rows, LATENT - 2), known) > 0.7
    assert accuracy(start[:, 2:] + 0.5 * torch.randn(rows, LATENT - 2), known["alphabet"]) > 0.95

    kept = {}
    for name, within in (("within", {"drawer": "alphabet"}), ("plain", None)):
        guidance = guided(within=within, hidden=32)
        encoder = torch.nn.Sequential(torch.nn.Linear(LATENT, 32), torch.nn.ReLU(), torch.nn.Linear(32, LATENT))
        optimizer = torch.optim.Adam([*encoder.parameters(), *guidance.parameters()], 1e-2)
        for _ in range(300):
            z = start + encoder(start)
            terms = guidance(inputs(z + 0.5 * torch.randn_like(z), **known))
            loss = torch.stack(list(terms.values())).sum() + 0.1 * (z - start)[:, 2:].square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            z = start + encoder(start)
        draws = z + 0.5 * torch.randn_like(z)
        assert drawer_within_alphabet(draws[:, :2], known) > 0.7  # in the units that are the drawer's
        assert drawer_within_alphabet(draws[:, 2:], known) < 0.6  # chance is a third
        kept[name] = accuracy(draws[:, 2:], known["alphabet"])
    assert kept["within"] > 0.93
    assert kept["plain"] < kept["within"] - 0.15


def test_an_adversary_on_means_sees_what_noise_hides_from_draws_and_no_scale() -> None:
    z, noise = torch.randn(24, LATENT), torch.randn(24, LATENT)
    known, paper = labels(24), torch.zeros(24, 1, 28, 28)
    found = {}
    for name, scale, drawn in (("small", 0.1, noise), ("large", 3.0, noise), ("other draw", 3.0, -noise)):
        mean = scale * z + 2
        given = GuidanceInputs(paper, Posterior(mean, torch.zeros_like(mean)), mean + drawn, torch.nn.Identity(), known)
        found[name] = [guided(reads=reads)(given)["adversary/drawer"].detach() for reads in ("means", "draws")]
    assert float(found["small"][0]) == pytest.approx(float(found["large"][0]), rel=1e-2)
    assert found["large"][0] == found["other draw"][0]
    assert found["large"][1] != found["other draw"][1]
    guidance = guided(reads="means")
    rest = z[:, guidance.rest["drawer"]]
    told = guidance.adversaries["drawer"]((rest - rest.mean(0)) / rest.std(0, correction=0), known["alphabet"])
    expected = F.cross_entropy(told, known["drawer"])
    assert float(found["large"][0]) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_a_guided_alphabet_is_labels_that_a_run_was_taught() -> None:
    assert guided().taught() == ("drawer", "alphabet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"within": {"alphabet": "drawer"}}, "must name attributes that it guides \\(drawer\\)"),
        ({"within": {"drawer": "drawer"}}, "each within another one"),
        ({"within": {"drawer": "country"}}, "'country', which the training pictures do not have; they have: alphabet"),
        ({"reads": "guesses"}, "reads 'draws' or 'means' of the posterior; received 'guesses'"),
        ({"dependence": 1.0}, "dependence and edits must be 0"),
        ({"edits": 1.0}, "dependence and edits must be 0"),
    ],
)
def test_what_cannot_be_within_another_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        guided(**options)


def test_missing_alphabets_are_named() -> None:
    with pytest.raises(InputError, match="needs the attribute 'alphabet' of each picture"):
        guided()(inputs(torch.randn(4, LATENT), drawer=torch.zeros(4).long()))
