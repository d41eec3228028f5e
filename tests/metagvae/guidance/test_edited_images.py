"""Edited images: exchanged units by hand, the terms by their definition and by finite differences, and who learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from episodes.batch_share import Share, holding
from metagvae.encoders.encoder import Posterior
from metagvae.guidance import ExcitationInhibition, GuidanceContext, GuidanceInputs, Views, assign_units
from metagvae.guidance.edited_images import Exchange

ATTRIBUTES = {"digit": 2, "slant": 1}
UNITS = assign_units([{"name": "excitation_inhibition", "attributes": ATTRIBUTES}], 5)
CONTEXT = GuidanceContext(1, 16, UNITS, {"digit": 3, "slant": 2})
LABELS = {"digit": torch.tensor([0, 1, 2, -1, 1, 0]), "slant": torch.tensor([1, 0, -1, 1, 0, 0])}


class Linear(nn.Module):
    """A decoder that says what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(5, 256)

    def forward(self, z: Tensor) -> Tensor:
        self.given = z
        logits: Tensor = self.weights(z)
        return logits.view(-1, 1, 16, 16)


def guided(**options: float) -> tuple[ExcitationInhibition, GuidanceInputs, Linear]:
    torch.manual_seed(0)
    guidance = ExcitationInhibition(CONTEXT, ATTRIBUTES, excitation=0.0, inhibition=0.0, **options).double()
    decoder = Linear().double()
    z = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    images = torch.rand(6, 1, 16, 16, dtype=torch.float64)
    return guidance, GuidanceInputs(images, Posterior(z, torch.zeros_like(z)), z, decoder, LABELS), decoder


def test_each_group_comes_from_a_row_of_its_own_and_labels_with_it() -> None:
    z = torch.arange(30.0).view(6, 5)
    for count in (1, 2):
        edited, told = Exchange(UNITS | {"content": []}, 5)(z, LABELS, count)
        for row in range(6):
            assert edited[row, :2].tolist() == z[row - count, :2].tolist()
            assert edited[row, 2] == z[(row - 2 * count) % 6, 2]
            assert edited[row, 3:].tolist() == z[row, 3:].tolist()
            assert told["digit"][row] == LABELS["digit"][row - count]
            assert told["slant"][row] == LABELS["slant"][(row - 2 * count) % 6]


def test_the_terms_are_cross_entropies_of_what_is_drawn_and_of_the_training_images() -> None:
    guidance, inputs, decoder = guided(edits=3.0)
    terms = guidance(inputs)
    shown = {"digit": LABELS["digit"].roll(1), "slant": LABELS["slant"].roll(2)}
    read, seen = guidance.reader(decoder(decoder.given).sigmoid()), guidance.reader(inputs.images)
    for name in ATTRIBUTES:
        drawn = F.cross_entropy(read[name], shown[name], ignore_index=-1)
        assert terms[f"edits/{name}"].item() == pytest.approx(3 * drawn.item(), rel=1e-6)
        own = F.cross_entropy(seen[name], LABELS[name], ignore_index=-1)
        assert terms[f"reader/{name}"].item() == pytest.approx(own.item(), rel=1e-6)
    assert not any("edits" in name or "reader" in name for name in guided()[0](guided()[1]))


def test_the_reader_learns_from_training_images_alone_and_the_codes_from_what_is_drawn() -> None:
    guidance, inputs, decoder = guided(edits=3.0)
    terms = guidance(inputs)
    sum(terms[f"edits/{name}"] for name in ATTRIBUTES).backward(retain_graph=True)  # type: ignore[union-attr]
    assert all(value.grad is None for value in guidance.reader.parameters())
    assert decoder.weights.weight.grad is not None
    assert inputs.z.grad is not None
    gradient = inputs.z.grad.clone()
    for place in ((0, 0), (3, 2), (5, 4)):
        sides = []
        for step in (1e-5, -1e-5):
            moved = inputs.z.detach().clone()
            moved[place] += step
            again = guidance(GuidanceInputs(inputs.images, inputs.posterior, moved, decoder, LABELS))
            sides.append(float(sum(again[f"edits/{name}"].detach() for name in ATTRIBUTES)))
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(float(gradient[place]), rel=1e-3, abs=1e-6)
    inputs.z.grad = None
    sum(terms[f"reader/{name}"] for name in ATTRIBUTES).backward()  # type: ignore[union-attr]
    assert inputs.z.grad is None
    assert all(value.grad is not None for value in guidance.reader.parameters())


def test_warps_of_one_image_take_units_of_another_image() -> None:
    guidance, inputs, decoder = guided(edits=3.0)
    views = Views(2, torch.zeros(6, 7))
    guidance(GuidanceInputs(inputs.images, inputs.posterior, inputs.z, decoder, LABELS, views))
    assert torch.equal(decoder.given[:, :2], inputs.z.roll(2, 0)[:, :2])
    assert torch.equal(decoder.given[:, 2], inputs.z.roll(4, 0)[:, 2])


def test_a_share_of_the_batch_has_rows_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.arange(30.0).view(6, 5)
    whole, told = Exchange(UNITS, 5)(z, LABELS)
    gathered = {6: z, 3: torch.empty(0)}

    def rows(values: Tensor) -> Tensor:
        return gathered[6] if values.ndim == 2 else LABELS[asked.pop(0)]

    monkeypatch.setattr("metagvae.guidance.edited_images.batch_rows", rows)
    with holding(Share(3, 3, 6)):
        asked = ["digit", "slant"]
        own, shown = Exchange(UNITS, 5)(z[3:], {name: values[3:] for name, values in LABELS.items()})
    assert torch.equal(own, whole[3:])
    assert all(torch.equal(shown[name], told[name][3:]) for name in LABELS)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"edits -1\.0"):
        guided(edits=-1.0)
