from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from episodes import InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.guidance import GUIDANCES, GuidanceContext, GuidanceInputs, Views, assign_units, make_guidances
from metagvae.guidance.deformable_pca import TRANSFORMS, DeformablePCA
from metagvae.guidance.excitation_inhibition import ExcitationInhibition
from metagvae.vae.decoders import Decoder
from metagvae.vae.guided_vae import GuidedVAE

SPECS = {
    "deformable_pca": {"name": "deformable_pca", "unit_norm": 0.5},
    "excitation_inhibition": {"name": "excitation_inhibition", "attributes": {"class": 3, "script": 2}},
    "warp_pairs": {"name": "warp_pairs", "geometry": 4, "inhibition": 1.0},
    "auxiliary_contrast": {"name": "auxiliary_contrast"},
    "contrastive_traversal": {"name": "contrastive_traversal", "width": 4},
}
SIZES = {"class": 4, "script": 2}


def build(*names: str, latent: int = 16, **extra: object) -> GuidedVAE:
    specs = [{**SPECS[name], **extra} for name in names]
    units = assign_units(specs, latent)
    encoder = Encoder(EncoderConfig(width=8, latent=latent, units=units))
    guidances = make_guidances(specs, GuidanceContext(1, 28, units, SIZES))
    return GuidedVAE(encoder, Decoder(latent, 1, 28, 8), guidances)


def attributes(count: int) -> dict[str, Tensor]:
    return {"class": torch.arange(count) % 4, "script": torch.arange(count) % 2}


# other tests register guidances of their own
SHIPPED = [name for name, cls in GUIDANCES.items() if cls.__module__.startswith("metagvae.")]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_guidance_reaches_every_parameter(name: str) -> None:
    """A new guidance is tested by being registered (and given options above if it needs any)."""
    vae = build(name)
    views = Views(2, torch.rand(8, 7)) if GUIDANCES[name].needs_views else None
    terms = vae.losses(torch.rand(8, 1, 28, 28), attributes(8), views=views)
    own = {key: term for key, term in terms.items() if key.startswith(f"{name}/")}
    assert own
    assert all(term.ndim == 0 and torch.isfinite(term) for term in own.values())
    torch.stack(list(terms.values())).sum().backward()
    silent = [key for key, p in vae.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not silent


@pytest.mark.parametrize("name", SHIPPED)
def test_every_guidance_owns_the_units_it_asks_for(name: str) -> None:
    vae = build(name)
    owned = GUIDANCES[name].owned_units(**{k: v for k, v in SPECS[name].items() if k != "name"})
    assert {group: len(vae.encoder.units[group]) for group in owned} == owned
    assert sum(map(len, vae.encoder.units.values())) == 16


def test_units_of_several_guidances_lie_side_by_side() -> None:
    units = assign_units(list(SPECS.values())[:2], 16)
    assert units == {
        "geometry": [0, 1, 2, 3, 4, 5],
        "class": [6, 7, 8],
        "script": [9, 10],
        "content": [11, 12, 13, 14, 15],
    }
    assert assign_units([], 3) == {"content": [0, 1, 2]}
    with pytest.raises(InputError, match="leaves none for content"):
        assign_units(list(SPECS.values())[:2], 11)
    with pytest.raises(InputError, match="'geometry' is asked for twice"):
        assign_units([SPECS["deformable_pca"], SPECS["warp_pairs"]], 16)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "dpca"}, "known|among: deformable_pca"),
        ({"name": "deformable_pca", "transfroms": []}, "allowed: transforms"),
        ({"name": "deformable_pca", "transforms": ["twist"]}, "rotation, scale, shear, translation"),
        ({"name": "excitation_inhibition"}, "needs attributes"),
    ],
)
def test_wrong_specs_are_refused(spec: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assign_units([spec], 32)


def pca(*transforms: str, latent: int = 16, **options: object) -> DeformablePCA:
    units = assign_units([{"name": "deformable_pca", "transforms": transforms}], latent)
    torch.manual_seed(0)
    return DeformablePCA(GuidanceContext(1, 28, units), transforms=transforms, **options)  # type: ignore[arg-type]


def inputs(images: Tensor, z: Tensor) -> GuidanceInputs:
    return GuidanceInputs(images, Posterior(z, torch.zeros_like(z)), z, torch.nn.Identity(), {})


def test_the_warp_starts_at_the_identity() -> None:
    guidance = pca(*TRANSFORMS)
    z = torch.randn(3, 16)
    z[:, guidance.geometry] = 0
    assert torch.allclose(guidance.warp(z[:, guidance.geometry])[0], torch.eye(2, 3), atol=1e-7)
    assert torch.allclose(guidance.light_decoder(z), guidance.canonical(z[:, guidance.content]), atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "deformable_pca", "orthogonality": -1.0},
        {"name": "excitation_inhibition", "attributes": {"class": 2}, "inhibition": -1.0},
        {"name": "excitation_inhibition", "attributes": {"class": 2}, "hidden": 0},
    ],
)
def test_weights_below_zero_are_refused(spec: dict) -> None:
    with pytest.raises(InputError, match=">= 0"):
        make_guidances([spec], GuidanceContext(1, 28, assign_units([spec], 16), SIZES))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_transform_is_switchable_and_does_what_it_says(name: str) -> None:
    guidance = pca(name)
    count, _ = TRANSFORMS[name]
    assert len(guidance.geometry) == count
    theta = guidance.warp(torch.full((1, count), 0.7))[0].detach()
    linear, column = theta[:, :2], theta[:, 2]
    if name == "rotation":
        assert torch.allclose(linear @ linear.T, torch.eye(2), atol=1e-6)
        assert not torch.allclose(linear, torch.eye(2), atol=1e-2)
    if name == "scale":
        assert torch.allclose(linear, torch.diag(linear.diagonal()))
        assert (linear.diagonal() < 1).all()  # larger picture: the grid reads from a smaller part
        one_axis = guidance.warp(torch.tensor([[0.7, 0.0]]))[0]
        assert one_axis[1, 1] == 1  # anisotropic
        assert one_axis[0, 0] < 1
    if name == "shear":
        assert linear[0, 1] != 0
        assert torch.equal(linear.diagonal(), torch.ones(2))
    assert (column.abs().max() > 0) == (name == "translation")


def test_scales_stay_positive_and_shifts_inside_for_any_latent() -> None:
    guidance = pca("scale", "translation")
    theta = guidance.warp(torch.randn(100, 4) * 100)
    assert (theta[:, 0, 0] > 0.2).all()
    assert (theta[:, 1, 1] > 0.2).all()
    assert theta.abs().max() < 10


def test_loss_is_the_paper_equation_written_out() -> None:
    guidance = pca("rotation", orthogonality=0.7, weight=2.0).requires_grad_(False)
    images, z = torch.rand(5, 1, 28, 28), torch.randn(5, 16)
    terms = guidance(inputs(images, z))
    b = guidance.components.weight  # [pixels, content]
    total = 0.0
    for i in range(5):
        linear = (b @ z[i, guidance.content] + guidance.components.bias).view(1, 1, 28, 28)
        grid = F.affine_grid(guidance.warp(z[i : i + 1, guidance.geometry]), [1, 1, 28, 28], align_corners=False)
        total += float(
            (images[i] - F.grid_sample(linear, grid, padding_mode="border", align_corners=False)).square().sum()
        )
    assert float(terms["reconstruction"].detach()) == pytest.approx(2.0 * total / 5, rel=1e-4)
    pairs = sum(float(b[:, j] @ b[:, k]) ** 2 for j in range(b.shape[1]) for k in range(b.shape[1]) if j != k)
    assert float(terms["orthogonality"].detach()) == pytest.approx(2.0 * 0.7 * pairs, rel=1e-3)


def test_orthogonality_does_not_depend_on_batch_size() -> None:
    guidance = pca("rotation")
    one = guidance(inputs(torch.rand(2, 1, 28, 28), torch.randn(2, 16)))
    other = guidance(inputs(torch.rand(50, 1, 28, 28), torch.randn(50, 16)))
    assert torch.equal(one["orthogonality"], other["orthogonality"])


def test_orthogonality_is_not_rounded_away_in_low_precision() -> None:
    guidance = pca("rotation")
    exact = guidance.basis_terms()["orthogonality"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(guidance.basis_terms()["orthogonality"], exact)
    assert exact > 0


def test_gradients_of_the_warp_are_exact() -> None:
    guidance = pca(*TRANSFORMS).double()
    images = F.avg_pool2d(torch.rand(2, 1, 28, 28, dtype=torch.float64), 5, 1, 2)
    z = (0.3 * torch.randn(2, 16, dtype=torch.float64)).requires_grad_()

    def loss(z: Tensor) -> Tensor:
        # float() inside would round; ask the same path in float64
        picture = guidance.components(z[:, guidance.content]).view(-1, 1, 28, 28)
        grid = F.affine_grid(guidance.warp(z[:, guidance.geometry]), [2, 1, 28, 28], align_corners=False)
        return (F.grid_sample(picture, grid, padding_mode="border", align_corners=False) - images).square().sum()

    assert torch.autograd.gradcheck(loss, (z,), eps=1e-7, atol=1e-3)


def test_deformable_pca_recovers_a_known_turn() -> None:
    """One bar under turns: with a rotation unit the linear picture must do with one component."""
    torch.manual_seed(0)
    bar = torch.zeros(1, 1, 28, 28)
    bar[..., 12:16, 4:24] = 1
    angles = torch.linspace(-0.6, 0.6, 64)
    zero = torch.zeros(64)
    from episodes.augment import affine_matrix

    theta = affine_matrix(angles, zero, zero, zero, torch.zeros(64, 2))
    images = F.grid_sample(
        bar.expand(64, -1, -1, -1), F.affine_grid(theta, [64, 1, 28, 28], align_corners=False), align_corners=False
    )
    guidance = pca("rotation", latent=3)
    z = torch.zeros(64, 3, requires_grad=True)
    optimizer = torch.optim.Adam([z, *guidance.parameters()], 0.02)
    for _ in range(400):
        loss = torch.stack(list(guidance(inputs(images, z)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = (z[:, guidance.geometry[0]] * guidance.gains[0]).detach()
    assert abs(float(torch.corrcoef(torch.stack((found, angles)))[0, 1])) > 0.99


def test_a_limited_gain_stays_below_its_limit_and_still_learns_and_the_others_are_free() -> None:
    guidance, free = pca(*TRANSFORMS, limits={"scale": 0.11, "translation": 2.0}), pca(*TRANSFORMS)
    with torch.no_grad():
        for gains in (guidance.gains, free.gains):
            gains.copy_(torch.tensor([0.3, 5.0, -5.0, 0.4, 0.05, 3.0]))
    reached = guidance.reached().detach()
    assert torch.allclose(reached[[0, 3]], torch.tensor([0.3, 0.4]))  # rotation and shear have no limit
    assert torch.allclose(reached[1:3], torch.tensor([0.11, -0.11]), atol=1e-6)
    assert reached[4] == pytest.approx(0.05, abs=1e-4)  # far below a limit a gain is what it is
    assert reached[5] == pytest.approx(2 * math.tanh(1.5))
    assert torch.equal(free.reached(), free.gains)
    width = guidance.warp(torch.tensor([[0, 2.0, 0, 0, 0, 0]])).detach()[
        0, 0, 0
    ]  # two deviations: 1 / e^0.22, as tanh keeps it
    assert float(width) == pytest.approx(math.exp(-1.5 * math.tanh(0.22 / 1.5)), abs=1e-4)
    with torch.no_grad():
        guidance.gains[1] = 0.1
    guidance.reached().sum().backward()
    assert guidance.gains.grad.isfinite().all()
    assert guidance.gains.grad[1] == pytest.approx(1 - math.tanh(0.1 / 0.11) ** 2, abs=1e-4)
    for wrong in ({"scale": 0.0}, {"twist": 0.1}):
        with pytest.raises(InputError, match=r"limits are numbers above 0 of some of its transforms rotation"):
            pca("rotation", limits=wrong)


def excite(form: str, latent: int = 8) -> ExcitationInhibition:
    units = assign_units([{"name": "excitation_inhibition", "attributes": {"class": 2}}], latent)
    torch.manual_seed(0)
    return ExcitationInhibition(GuidanceContext(1, 28, units, SIZES), {"class": 2}, form=form)


def labelled(z: Tensor, labels: Tensor) -> GuidanceInputs:
    return GuidanceInputs(torch.zeros(len(z), 1, 28, 28), Posterior(z, z), z, torch.nn.Identity(), {"class": labels})


@pytest.mark.parametrize("form", ["confusion", "adversarial"])
def test_the_adversary_learns_from_detached_units_only(form: str) -> None:
    guidance = excite(form)
    z = torch.randn(32, 8, requires_grad=True)
    # labels that the adversary guesses better than chance, so that there is something to hide
    labels = guidance.adversaries["class"](z[:, 2:]).argmax(1).detach()
    terms = guidance(labelled(z, labels))
    terms["adversary/class"].backward(retain_graph=True)
    assert z.grad is None
    assert all(p.grad is not None for p in guidance.adversaries.parameters())
    guidance.zero_grad()
    terms["inhibition/class"].backward()
    assert z.grad is not None
    assert z.grad[:, 2:].abs().sum() > 0
    assert z.grad[:, :2].abs().sum() == 0  # the attribute's own units are not inhibited
    assert all(p.grad is None for p in guidance.adversaries.parameters())


@pytest.mark.parametrize("form", ["confusion", "adversarial"])
def test_inhibition_drives_information_out(form: str) -> None:
    """Codes start with the label plainly in the rest; a fresh classifier must fail to find it afterwards."""
    torch.manual_seed(0)
    guidance = excite(form)
    labels = torch.arange(256) % 4
    start = torch.randn(256, 8)
    start[:, 4] += 3 * labels.float()
    mapping = torch.nn.Linear(8, 8)
    torch.nn.init.eye_(mapping.weight)
    optimizer = torch.optim.Adam([*mapping.parameters(), *guidance.parameters()], 1e-2)

    def separation() -> float:
        z = mapping(start).detach()
        return float(torch.stack([z[labels == k, 4].mean() for k in range(4)]).std() / z[:, 4].std())

    before = separation()
    for _ in range(400):
        z = mapping(start)
        noisy = z + 0.5 * torch.randn_like(z)
        loss = (
            torch.stack(list(guidance(labelled(noisy, labels)).values())).sum()
            + 0.01 * (z - start).square().sum(1).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before > 0.9
    assert separation() < 0.75 * before
    z = mapping(start).detach()
    from sklearn.linear_model import LogisticRegression

    own = LogisticRegression(max_iter=500).fit(z[:, :2], labels).score(z[:, :2], labels)
    assert own > 0.6  # excitation moved it into the chosen units


def test_confusion_is_zero_at_a_uniform_guess_and_positive_elsewhere() -> None:
    guidance = excite("confusion")
    labels, known = torch.tensor([0, 1]), torch.tensor([True, True])
    assert float(guidance._inhibition(torch.zeros(2, 4), labels, known)) == pytest.approx(0.0, abs=1e-6)
    assert guidance._inhibition(torch.randn(2, 4), labels, known) > 0
    adversarial = excite("adversarial")
    assert float(adversarial._inhibition(torch.zeros(2, 4), labels, known)) == pytest.approx(0.0, abs=1e-6)
    good = torch.eye(4)[:2] * 10
    assert float(adversarial._inhibition(good, labels, known)) == pytest.approx(math.log(4), abs=0.01)


def test_unknown_labels_take_no_part() -> None:
    guidance = excite("confusion")
    z = torch.randn(6, 8)
    labels = torch.tensor([0, 1, 2, -1, -1, 3])
    known = labels >= 0
    both = guidance(labelled(z, labels)), guidance(labelled(z[known], labels[known]))
    for name in both[0]:
        torch.testing.assert_close(both[0][name], both[1][name])


@pytest.mark.parametrize("form", ["confusion", "adversarial"])
def test_a_batch_of_unknown_labels_alone_has_the_same_terms_all_zero_and_no_gradient(form: str) -> None:
    guidance, z = excite(form), torch.randn(3, 8, requires_grad=True)
    terms = guidance(labelled(z, torch.tensor([-1, -1, -3])))
    assert terms.keys() == guidance(labelled(z, torch.tensor([0, 1, 2]))).keys()
    assert all(float(term.detach()) == 0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert not z.grad.any()


def test_missing_attributes_are_named() -> None:
    with pytest.raises(InputError, match=r"'writer'.*class, script"):
        ExcitationInhibition(GuidanceContext(1, 28, {"writer": [0], "content": [1]}, SIZES), {"writer": 1})
