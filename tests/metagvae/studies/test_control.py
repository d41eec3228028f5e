"""The control study on decoders whose behaviour is known: it must praise the right one and catch the wrong ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from episodes import Attribute, ImageBank, InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig, Posterior
from metagvae.evaluation.lenet import train_lenet
from metagvae.evaluation.pose import POSES, pose
from metagvae.guidance import assign_units
from metagvae.studies.attribute_control import (
    Codes,
    adversary_codes,
    control_of_attributes,
    fresh_adversary,
    image_labels,
)
from metagvae.studies.control import VALUES, control_of_units, measured, moved_poses, named_units
from metagvae.studies.control_table import measure_control
from metagvae.studies.identity import Trial, identity_kept, moved_alike
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.build import VAESection, new_vae

GUIDED = [{"name": "deformable_pca", "main_decoder": True}]
SPREAD = torch.tensor([8.0, 15, 14, 15, 1.4, 1.5])


class Letter(nn.Module):
    """Draws one F with a tail whatever the latent, as logits."""

    def __init__(self) -> None:
        super().__init__()
        paper = torch.full((1, 1, 28, 28), -8.0)
        paper[..., 8:20, 10:12] = paper[..., 8:10, 10:18] = paper[..., 13:15, 10:16] = paper[..., 18:20, 12:14] = 8
        self.logits = nn.Parameter(paper)

    def forward(self, z: Tensor) -> Tensor:
        return self.logits.expand(len(z), 1, 28, 28)


def drawing(guidance: list[dict] | None = None) -> GuidedVAE:
    torch.manual_seed(0)
    guidance = GUIDED if guidance is None else guidance
    encoder = Encoder(EncoderConfig(width=8, latent=10, units=assign_units(guidance, 10)))
    vae = new_vae(encoder, VAESection(decoder="residual", decoder_width=8, guidance=guidance), {}).eval()
    if guidance:
        vae.decoder.decoder = Letter()
    return vae


def test_a_spatial_transformer_moves_the_pose_it_is_named_after_and_no_other() -> None:
    vae = drawing()
    assert named_units(vae) == dict(zip(POSES, vae.encoder.units["geometry"], strict=True))
    for row in control_of_units(vae, torch.rand(6, 1, 28, 28), SPREAD):
        assert row.rank > 0.99, row
        assert row.linearity > 0.9, row
        assert row.worst[1] < 0.15, row
        assert row.low < 0 < row.high
    # rotation: two deviations are twice the gain of 0.25 radians
    (turn,) = (row for row in control_of_units(vae, torch.rand(4, 1, 28, 28), SPREAD) if row.pose == "rotation")
    assert turn.high == pytest.approx(torch.tensor(0.5).rad2deg().item(), abs=1.5)


def test_a_unit_that_does_another_thing_than_its_name_is_caught() -> None:
    vae = drawing()
    with torch.no_grad():
        vae.guidances[0].gains[0] = 0  # rotation does nothing
    row = control_of_units(vae, torch.rand(4, 1, 28, 28), SPREAD)[0]
    assert row.rank < 0.8
    units = vae.encoder.units["geometry"]
    swapped = measured(moved_poses(vae, torch.randn(4, 10), units[4]), "rotation", units[4], SPREAD)
    assert swapped.worst[0] == "right"
    assert swapped.worst[1] > 5


def test_of_a_vae_without_names_the_best_unit_is_chosen_on_other_images() -> None:
    rows = control_of_units(drawing([]), torch.rand(6, 1, 28, 28), SPREAD)
    assert [row.pose for row in rows] == list(POSES)
    assert all(-1 <= row.rank <= 1 and 0 <= row.linearity <= 1 for row in rows)


def letters(kinds: int = 4, each: int = 6, side: int = 28) -> ImageBank:
    """Classes that a ruler can tell apart: a bar of one height and place each, a little noise."""
    generator = torch.Generator().manual_seed(0)
    classes = []
    for kind in range(kinds):
        images = torch.randint(0, 30, (each, 1, side, side), generator=generator)
        images[:, :, 4 + 5 * kind : 8 + 5 * kind, 6:22] = 250
        classes.append((f"letter {kind}", images.to(torch.uint8)))
    return ImageBank.from_classes(classes, dataset="letters", split="test", polarity="ink")


def test_identity_is_lost_where_a_unit_changes_the_character() -> None:
    bank = letters()

    class Rows(nn.Module):
        """Features: ink by row. A judge that can be fooled by a shift downwards alone."""

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 3))

    class Mirror(GuidedVAE):
        """Its latent is the image's row of ink and one unit that moves it, so it rebuilds exactly."""

        def infer(self, images: Tensor):  # type: ignore[no-untyped-def]
            mean = torch.zeros(len(images), 10)
            mean[:, 1] = (images.mean((1, 3)) > 0.4).float().argmax(1).float()  # the bar's first row
            return type("Q", (), {"mean": mean})()

    class Bars(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            rows = torch.arange(28.0)
            top = z[:, 1] + 5 * z[:, 0].round()
            bar = (rows >= top[:, None]) & (rows < top[:, None] + 4)
            ink = (bar[:, :, None] & ((rows >= 6) & (rows < 22))).float()
            return (16 * ink - 8)[:, None]

    vae = Mirror(Encoder(EncoderConfig(width=8, latent=10)), Bars()).eval()
    found = identity_kept(vae, bank, Rows(), {"down": 0, "nothing": 5}, Trial(episodes=6))
    assert found.way == 4
    assert found.real[0] == 1.0
    assert found.unmoved[0] == 1.0
    assert not found.alike  # no spatial transformer, so no warp to move real images by
    assert found.moved["nothing"][0] == 1.0
    assert found.moved["down"][0] < 0.5


def test_real_images_are_moved_as_the_transformer_moves_what_it_draws() -> None:
    vae = drawing()
    geometry = vae.encoder.units["geometry"]
    before, after = torch.zeros(5, 10), torch.zeros(5, 10)
    before[:, geometry], after[:, geometry] = 0.4 * torch.randn(5, 6), 0.4 * torch.randn(5, 6)
    with torch.no_grad():
        here, there = vae.decode(before), vae.decode(after)
        moved = moved_alike(vae.decoder, here, before, after)
        assert torch.allclose(moved_alike(vae.decoder, here, before, before), here, atol=1e-5)
    # resampled twice, so a little softer; far nearer to the target than where it began
    assert float((moved - there).square().mean()) < 0.1 * float((here - there).square().mean())


def test_the_ceiling_is_lost_where_the_warp_itself_makes_another_character() -> None:
    """Bars that differ in place alone: a shift by five rows is another class, whoever draws it."""
    bank = letters()
    vae = drawing()
    with torch.no_grad():
        vae.guidances[0].gains[:] = 0
        vae.guidances[0].gains[5] = 0.19  # two deviations are tanh(0.38) half sides: 5 rows
    down = vae.encoder.units["geometry"][5]

    def rows(images: Tensor) -> Tensor:
        return images.mean((1, 3))

    found = identity_kept(vae, bank, rows, {"down": down, "right": down - 1}, Trial(episodes=4))
    assert found.real[0] == 1.0
    assert found.alike["right"][0] == 1.0
    assert found.alike["down"][0] < 0.5


def sides() -> ImageBank:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 40, (80, 1, 28, 28), generator=generator).to(torch.uint8)
    images[40:, :, :, 14:] = 200  # the second class is bright on one side
    return ImageBank(
        images, torch.tensor([0, 40, 80]), ("dark", "bright"), "sides", "train", "ink",
        {"side": Attribute(torch.tensor([0, 1]), ("dark", "bright"))},
    )  # fmt: skip


class Grey(torch.nn.Module):
    """The right half at 0.27 or 0.73, as the first unit says; the rest black."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(z), 1, 28, 28), -20.0)
        logits[..., 14:] = z[:, :1, None, None].sign()
        return logits


class Strict:
    """A judge that takes no grey for bright."""

    heads = ("side",)

    def verdicts(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"side": (images[..., 14:].mean((1, 2, 3)) > 0.75).long()}


def test_attributes_are_judged_as_the_temperature_draws_them() -> None:
    bank, units = sides(), {"side": [0], "content": [1, 2]}
    vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=3, units=units)), Grey()).eval()

    def known(images: torch.Tensor) -> Posterior:
        mean = torch.zeros(len(images), 3)
        mean[:, 0] = (images[..., 14:].mean((1, 2, 3)) > 0.5).float() * 2 - 1
        return Posterior(mean, torch.full_like(mean, -9.0))

    vae.infer = known  # type: ignore[method-assign]
    for temperature, share in ((1.0, 0.5), (0.25, 1.0)):
        trial = Trial(temperature=temperature)
        (row,), _ = control_of_attributes(vae, bank, bank, 40, trial, Strict())  # type: ignore[arg-type]
        assert (row.agrees, row.rebuilt) == (share, share)
        assert row.leak == row.chance == 0.5
        assert row.changes == {}


def test_the_adversary_finds_what_leaks_and_nothing_where_nothing_does() -> None:
    bank = sides()
    assert image_labels(bank, ["side"])["side"].tolist() == [0] * 40 + [1] * 40
    units = {"side": [0, 1], "content": list(range(2, 10))}
    torch.manual_seed(0)
    vae = GuidedVAE(Encoder(EncoderConfig(width=8, latent=10, units=units)), Letter()).eval()

    def codes() -> tuple[Codes, Codes]:
        return adversary_codes(vae, bank), adversary_codes(vae, bank)

    leak, chance = fresh_adversary(vae, codes(), "side")
    assert chance == 0.5
    assert leak > 0.95  # an untrained encoder hides nothing
    with torch.no_grad():  # noise a thousand times as wide as what the means differ by
        vae.encoder.to_log_var.weight.zero_()
        vae.encoder.to_log_var.bias.fill_(2 * float(torch.log(1000 * vae.infer(torch.rand(9, 1, 28, 28)).mean.std())))
    assert fresh_adversary(vae, codes(), "side")[0] > 0.95
    of_draws, _ = fresh_adversary(vae, codes(), "side", draws=True)
    assert of_draws == pytest.approx(0.5, abs=0.2)
    with torch.no_grad():
        vae.encoder.to_mean.weight[2:] = 0
    leak, _ = fresh_adversary(vae, codes(), "side")
    assert leak == pytest.approx(0.5, abs=0.01)


def test_lenet_learns_each_label_and_takes_no_part_of_unknown_ones() -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 40, (400, 1, 28, 28), generator=generator).to(torch.uint8)
    half, dark = torch.arange(400) % 2, torch.arange(400) // 200
    images[half == 1, :, :14] += 180
    images[dark == 1, :, 14:] += 180
    labels = {"top": half, "bottom": torch.where(torch.arange(400) % 4 == 3, -1, dark)}
    judge = train_lenet(images, labels, {"top": 2, "bottom": 2}, epochs=6)
    verdicts = judge.verdicts(images.float() / 255)
    assert float((verdicts["top"] == half).double().mean()) > 0.99
    assert float((verdicts["bottom"] == dark).double().mean()) > 0.99
    again = train_lenet(images, labels, {"top": 2, "bottom": 2}, epochs=6)
    assert all(torch.equal(a, b) for a, b in zip(judge.parameters(), again.parameters(), strict=True))


def test_values_go_from_minus_two_to_two() -> None:
    assert VALUES.tolist() == [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2]
    assert pose(torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28)).shape == (2, 6)


def test_vaes_of_other_test_images_are_not_put_beside_each_other() -> None:
    class Run:
        def __init__(self, name: str, grey: int) -> None:
            self.name, self.grey = name, grey

        def dataset(self, root: str | None) -> Run:
            return self

        def load(self, split: str) -> ImageBank:
            images = torch.full((4, 1, 28, 28), self.grey, dtype=torch.uint8)
            return ImageBank.from_classes([("one", images)], dataset=f"grey{self.grey}", split=split)

    with pytest.raises(InputError, match="the same test images; a is of grey1 and b of grey2"):
        measure_control([Run("a", 1), Run("b", 2)], 4, Trial(), None)  # type: ignore[list-item]
