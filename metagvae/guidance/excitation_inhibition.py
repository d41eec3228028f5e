"""Supervised guidance: excitation and inhibition (Ding et al., CVPR 2020, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from episodes import InputError
from metagvae.compute.batch_statistics import batch_mean, batch_rows
from metagvae.encoders.norm import full_precision
from metagvae.encoders.units import Units
from metagvae.guidance.base import GUIDANCES, Guidance, GuidanceContext, GuidanceInputs
from metagvae.guidance.dependence import dependence
from metagvae.guidance.edited_images import Exchange, ImageReader


class _Classifier(nn.Sequential):
    """Codes to logits of an attribute's values, of each group of images its own where the attribute has groups.

    Args:
        inputs, values, hidden: units, values of the attribute and width of the hidden layer.
        groups: for how many groups of images the values mean different things.
    """

    def __init__(self, inputs: int, values: int, hidden: int, groups: int) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, groups * values))
        self.groups = groups

    def forward(self, codes: Tensor, group: Tensor | None = None) -> Tensor:
        """``[B, values]`` of codes ``[B, inputs]`` and each row's group int64 ``[B]``; None without groups."""
        for layer in self:
            codes = layer(codes)
        if group is None:
            return codes
        logits = codes.unflatten(-1, (self.groups, -1))
        own: Tensor = logits.gather(1, group.view(-1, 1, 1).expand(-1, 1, logits.shape[-1])).squeeze(1)
        return own


def _cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Its mean over the step's pictures whose labels are ``known``; the other labels are -1."""
    each = F.cross_entropy(full_precision(logits), labels, reduction="none", ignore_index=-1)
    return batch_mean(each, known)


def _known(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels, and which are known: unknown ones weigh nothing, as to leave them out the host would have to count."""
    return labels.clamp(min=-1), labels >= 0


def _standardised(codes: Tensor) -> Tensor:
    """Codes ``[B, D]``, each unit in deviations from its mean over the step's batch."""
    codes = full_precision(codes)
    every = batch_rows(codes)
    return (codes - every.mean(0)) / (every.var(0, correction=0) + 1e-4).sqrt()


@GUIDANCES.register
class ExcitationInhibition(Guidance):
    """For each attribute, its units must predict it and all other units must not.

        maximise  sum_t [ max_w E log p_w(y_t | z_t)  -  max_C E log p_C(y_t | z_rest) ]

    The adversary C learns on detached units; the encoder sees C with its weights held still, so one backward
    pass and one optimiser serve both. Two forms of inhibition:

    - ``confusion``: the encoder drives C's prediction to the uniform distribution (the authors' code);
      bounded below, steadier.
    - ``adversarial``: the encoder maximises C's cross entropy (the paper's minimax), held at the entropy of
      a uniform guess, beyond which there is nothing left to hide.

    C reads draws of the posterior, in which what is smaller than their noise is hidden, or its means, and it may lag
    behind the encoder. ``dependence`` adds a third term that has no opponent: `metagvae.guidance.dependence` of the
    other units' posterior means and the attribute, as Lopez, Regier, Jordan & Yosef (NeurIPS 2018) have it.

    All of this is about codes. ``edits`` is about what is drawn: each attribute's units are exchanged for those of
    another image of the batch (`metagvae.guidance.edited_images`), and a network that learns on the training images
    must read in the decoded image every attribute as its units have it, whatever the other units say.

    Args:
        attributes: latent units by attribute name, e.g. ``{"alphabet": 8}``.
        excitation, inhibition: weights of the two terms.
        form: ``confusion`` or ``adversarial``.
        hidden: width of the classifiers' hidden layer.
        dependence: weight of the term on posterior means.
        edits: weight of the term on decoded images.
        within: an attribute by the name of another, such as ``{"drawer": "alphabet"}``, whose values mean something
            within one value of that one alone. Both classifiers are then given that value, so that what must go is the
            drawer among those of the alphabet, and not the alphabet, which tells that too.
        reads: the adversary reads ``draws`` of the posterior, or its ``means``, which are the features of images;
            standardised by the batch, so that to shrink them is of no avail.

    An attribute value below zero means unknown; such pictures take no part in that attribute's terms.

    Example:
        >>> from metagvae.guidance import ExcitationInhibition, GuidanceContext, assign_units
        >>> spec = {"name": "excitation_inhibition", "attributes": {"alphabet": 4}}
        >>> units = assign_units([spec], latent=16)
        >>> context = GuidanceContext(channels=1, size=28, units=units, attributes={"alphabet": 30})
        >>> guidance = ExcitationInhibition(context, attributes={"alphabet": 4})
        >>> {group: len(numbers) for group, numbers in units.items()}
        {'alphabet': 4, 'content': 12}
    """

    name = "excitation_inhibition"

    def __init__(
        self,
        context: GuidanceContext,
        attributes: Mapping[str, int],
        excitation: float = 10.0,
        inhibition: float = 10.0,
        form: str = "confusion",
        hidden: int = 64,
        dependence: float = 0.0,
        edits: float = 0.0,
        within: Mapping[str, str] | None = None,
        reads: str = "draws",
    ) -> None:
        super().__init__()
        if form not in ("confusion", "adversarial"):
            raise InputError(f"excitation_inhibition's form must be 'confusion' or 'adversarial'; received {form!r}.")
        if reads not in ("draws", "means"):
            raise InputError(f"excitation_inhibition reads 'draws' or 'means' of the posterior; received {reads!r}.")
        if min(excitation, inhibition, dependence, edits) < 0 or hidden < 1:
            raise InputError(
                "excitation_inhibition needs weights >= 0 and hidden >= 1; received excitation "
                f"{excitation}, inhibition {inhibition}, dependence {dependence}, edits {edits} and hidden {hidden}."
            )
        self.excitation, self.inhibition, self.dependence, self.form = excitation, inhibition, dependence, form
        self.edits, self.within, self.reads = edits, dict(within or {}), reads
        self._check_within(attributes)
        unknown = [name for name in [*attributes, *self.within.values()] if name not in context.attributes]
        if unknown:
            raise InputError(
                f"excitation_inhibition asks for the attribute {', '.join(map(repr, unknown))}, which the training "
                f"pictures do not have; they have: {', '.join(context.attributes) or 'none'}."
            )
        self.units = {name: context.units[name] for name in attributes}
        self.rest = {
            name: [unit for unit in range(context.latent) if unit not in set(units)]
            for name, units in self.units.items()
        }
        self.of_units = nn.ModuleDict({name: Units(units) for name, units in self.units.items()})
        self.of_rest = nn.ModuleDict({name: Units(units) for name, units in self.rest.items()})
        sizes = {name: context.attributes[name] for name in attributes}
        single = [name for name, size in sizes.items() if size < 2]
        if single:
            raise InputError(f"the attribute {single[0]!r} has one value only; there is nothing to predict.")
        groups = {name: context.attributes[self.within[name]] if name in self.within else 1 for name in sizes}
        self.exciters, self.adversaries = (
            nn.ModuleDict({name: _Classifier(len(u[name]), size, hidden, groups[name]) for name, size in sizes.items()})
            for u in (self.units, self.rest)
        )
        if edits:
            self.exchange = Exchange(self.units, context.latent)
            self.reader = ImageReader(context.channels, context.size, sizes)

    @classmethod
    def owned_units(cls, attributes: Mapping[str, int] | None = None, **options: Any) -> dict[str, int]:
        if not attributes or any(not isinstance(units, int) or units < 1 for units in attributes.values()):
            raise InputError(
                "excitation_inhibition needs attributes with a positive number of units each, such as "
                f"{{alphabet: 8}}; received {attributes}."
            )
        return dict(attributes)

    def _check_within(self, attributes: Mapping[str, int]) -> None:
        stray = [name for name, group in self.within.items() if name not in attributes or name == group]
        if stray:
            raise InputError(
                f"excitation_inhibition's within must name attributes that it guides ({', '.join(attributes)}), each "
                f"within another one; received {self.within}."
            )
        if self.within and (self.dependence or self.edits):
            raise InputError(
                "excitation_inhibition's within is of the classifiers of codes, so dependence and edits must be 0. "
                f"Received {self.dependence:g} and {self.edits:g}."
            )

    def taught(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.units, *self.within.values()]))

    def forward(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        codes = inputs.z if self.reads == "draws" else _standardised(inputs.posterior.mean)
        for name in self.units:
            labels, group = self._labels(name, inputs)
            labels, known = _known(labels)
            own, rest = self.of_units[name](inputs.z), self.of_rest[name](codes)
            terms[f"excitation/{name}"] = self.excitation * _cross_entropy(
                self.exciters[name](own, group), labels, known
            )
            adversary = self.adversaries[name]
            terms[f"adversary/{name}"] = _cross_entropy(adversary(rest.detach(), group), labels, known)
            still = {key: value.detach() for key, value in adversary.named_parameters()}
            hidden_from = full_precision(functional_call(adversary, still, (rest, group)))
            terms[f"inhibition/{name}"] = self.inhibition * self._inhibition(hidden_from, labels, known)
            if self.dependence:
                means = self.of_rest[name](inputs.posterior.mean)
                terms[f"dependence/{name}"] = self.dependence * dependence(means, labels, known)
        return terms | self._edits(inputs) if self.edits else terms

    def _labels(self, name: str, inputs: GuidanceInputs) -> tuple[Tensor, Tensor | None]:
        """Labels ``[B]`` of an attribute, below zero where it or its group is unknown, and its groups if any."""
        for needed in (name, self.within.get(name, name)):
            if needed not in inputs.attributes:
                raise InputError(
                    f"excitation_inhibition needs the attribute {needed!r} of each picture; received none."
                )
        labels = inputs.attributes[name]
        if name not in self.within:
            return labels, None
        group = inputs.attributes[self.within[name]]
        return labels.masked_fill(group < 0, -1), group.clamp(min=0)

    def _edits(self, inputs: GuidanceInputs) -> dict[str, Tensor]:
        """By attribute, the reader's own loss on the training images, and that of what is drawn as it reads it."""
        labels = {name: inputs.attributes[name] for name in self.units}
        z, shown = self.exchange(inputs.z, labels, inputs.views.count if inputs.views else 1)
        drawn = full_precision(inputs.decoder(z)).sigmoid()
        still = {key: value.detach() for key, value in self.reader.named_parameters()}
        of_images, of_drawn = self.reader(inputs.images), functional_call(self.reader, still, (drawn,))
        terms = {}
        for name in self.units:
            terms[f"reader/{name}"] = _cross_entropy(of_images[name], *_known(labels[name]))
            terms[f"edits/{name}"] = self.edits * _cross_entropy(of_drawn[name], *_known(shown[name]))
        return terms

    def _inhibition(self, logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """The loss that the encoder minimises, given the adversary's logits ``[B, K]``; zero at a uniform guess."""
        entropy = math.log(logits.shape[-1])
        if self.form == "confusion":
            return batch_mean(-F.log_softmax(logits, -1).mean(-1) - entropy, known)
        each = F.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
        return batch_mean(entropy - each, known).clamp(min=0)
