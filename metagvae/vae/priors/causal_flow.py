"""A prior in which the latent units of a factor follow from those of its causes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from episodes.batch_share import normal
from episodes.errors import InputError
from episodes.precision import autocast_off
from metagvae.encoders.encoder import Posterior
from metagvae.encoders.norm import full_precision
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.priors._mechanisms import Mechanism, causal_order, zuko_flows
from metagvae.vae.priors.base import PRIORS, Labels, Prior


@PRIORS.register
class CausalFlow(Prior):
    r"""A normalising flow over a known causal graph (Komanduri et al., ICM-VAE, IJCAI 2024), and labels where known.

    Each factor owns a block of latent units. ``noise = scale(causes) * z + shift(causes)`` is standard normal, with a
    network of its own for each factor: independent mechanisms. This is the label-free prior, :math:`p(z)`. Beside it
    stands :math:`\prod_i p(z_i | u_i)`, normal given the factor's label. In training with labels the KL term is

        ramp * (flow_weight * KL(q || p(z)) + labels_weight * sum over known labels of KL(q_i || p(z_i | u_i)))

    and without labels it is KL(q || p(z)) alone. A block whose label is unknown has ``unlabelled_weight`` in the first
    sum: a block that costs nothing would carry what the labelled ones should. Units of no factor are standard normal.
    Three points differ from the authors' code: their mechanisms share one network, their latent is never sampled, and
    their weights are per row of pixels. The weights here are per image.

    Args:
        context: its units hold a group for each factor; its factors hold the labels' ranges.
        graph: the causes of every factor by name, ``[]`` for none.
        units: latent units of each factor.
        flow_weight: of the label-free part, alpha in the paper.
        labels_weight: of the labels' part, beta in the paper.
        unlabelled_weight: of the label-free part of a factor, of images whose label of it is unknown.
        ramp: share of the training over which both weights grow from zero.
        conditional: ``labels``, or ``labels_and_parents`` where the labels' part sees the causes' units too.
        hidden: width of each mechanism's hidden layer.
        label_spread: standard deviation with which a factor's units begin around its label, scaled to [-1, 1]; None
            to begin without regard to it. A factor that is small in the image may need it: else its block may stay
            empty, which costs nothing, and the others carry it.

    Raises:
        InputError: if zuko is not installed, or the graph and the factors do not fit each other.

    Example:
        >>> import torch
        >>> from metagvae.guidance import GuidanceContext
        >>> graph = {"light": [], "shadow": ["light"]}
        >>> units, ranges = {"light": [0, 1], "shadow": [2, 3]}, {"light": (0.0, 1.0), "shadow": (0.0, 1.0)}
        >>> prior = CausalFlow(GuidanceContext(1, 28, units, factors=ranges), graph, units=2)
        >>> z = torch.randn(5, 4)
        >>> dark = prior.intervene(z, {"light": torch.zeros(5)})
        >>> (dark != z).any(0).tolist()  # the shadow follows
        [True, True, True, True]
        >>> moved = prior.intervene(z, {"shadow": torch.zeros(5)})
        >>> torch.equal(moved[:, :2], z[:, :2])  # the light does not
        True
    """

    name = "causal_flow"
    arrows: Tensor

    def __init__(
        self,
        context: GuidanceContext,
        graph: dict[str, list[str]] | None = None,
        units: int = 4,
        flow_weight: float = 0.2,
        labels_weight: float = 8.0,
        unlabelled_weight: float = 6.0,
        ramp: float = 0.5,
        conditional: str = "labels",
        hidden: int = 64,
        label_spread: float | None = None,
    ) -> None:
        super().__init__()
        self.owned_units(graph=graph, units=units)
        assert graph is not None
        if min(flow_weight, labels_weight, unlabelled_weight) < 0 or not 0 <= ramp <= 1 or not 1 <= hidden <= 1024:
            raise InputError(
                "vae.prior: causal_flow needs weights >= 0, ramp in [0, 1] and hidden in [1, 1024]; received "
                f"flow_weight {flow_weight}, labels_weight {labels_weight}, unlabelled_weight {unlabelled_weight}, "
                f"ramp {ramp} and hidden {hidden}."
            )
        if conditional not in ("labels", "labels_and_parents"):
            raise InputError(
                f"vae.prior: conditional must be 'labels' or 'labels_and_parents'; received {conditional!r}."
            )
        if label_spread is not None and not 0.001 <= label_spread <= 10:
            raise InputError(f"vae.prior: label_spread must be in [0.001, 10], or null; received {label_spread}.")
        missing = [name for name in graph if name not in context.factors]
        if missing:
            raise InputError(
                f"vae.prior: the graph names {', '.join(missing)[:200]}, which the images have no factor of; they "
                f"have: {', '.join(context.factors) or 'none'}. Take a data set with factors, such as pendulum."
            )
        self.order = causal_order(graph)
        self.graph = {name: tuple(graph[name]) for name in self.order}
        self.flow_weight, self.labels_weight, self.ramp = flow_weight, labels_weight, ramp
        self.unlabelled_weight = unlabelled_weight
        self.latent, self.ranges = context.latent, {name: context.factors[name] for name in self.order}
        # a factor that no image tells has no range
        self.told = [name for name, (low, high) in self.ranges.items() if high > low]
        with_causes = conditional == "labels_and_parents"
        self.nodes = nn.ModuleList()
        for name in self.order:
            causes = [unit for parent in self.graph[name] for unit in context.units[parent]]
            seen = None if name not in self.told else 1 + with_causes * len(causes)
            self.nodes.append(Mechanism(context.units[name], causes, seen, hidden, label_spread))
        # the graph that weights were trained for travels with them, and is compared when they are loaded
        arrows = [[cause in self.graph[name] for cause in self.order] for name in self.order]
        self.register_buffer("arrows", torch.tensor(arrows))

    @classmethod
    def owned_units(cls, **options: Any) -> dict[str, int]:
        graph, units = options.get("graph"), options.get("units", 4)
        if not graph:
            raise InputError(
                "vae.prior: causal_flow needs its graph, the causes of every factor by name, such as {light: [], "
                "shadow: [light]}; received none."
            )
        if units < 1:
            raise InputError(f"vae.prior: causal_flow needs units >= 1 for each factor; received {units}.")
        causal_order(graph)
        zuko_flows()
        return dict.fromkeys(graph, units)

    def kl(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        return self.kl_per_unit(posterior, z, labels).sum(-1)

    def kl_per_unit(self, posterior: Posterior, z: Tensor, labels: Labels) -> Tensor:
        """Each unit's part given the causes' draw, ``[B, latent]``: exact, as both densities are normal."""
        with autocast_off(z):
            mean, log_var, z = (full_precision(x) for x in (posterior.mean, posterior.log_var, z))
            free = _kl_from_normal(mean, log_var)
            weighted = self.flow_weight * free
            for name, node in self._each():
                own, spread = node.own(mean), node.own(log_var)
                shift, log_scale = node.affine(z)
                apart = _kl_from_normal(log_scale.exp() * own + shift, spread + 2 * log_scale)
                free = node.put(free, apart)
                part = self.unlabelled_weight * apart
                if name in labels and name in self.told:
                    label, known = self._label(name, labels[name].to(z))
                    shift, log_scale = node.affine_of_label(label, z)
                    told = _kl_from_normal(log_scale.exp() * own + shift, spread + 2 * log_scale)
                    whole = self.flow_weight * apart + self.labels_weight * told
                    part = torch.where(known[:, None], whole, part)
                weighted = node.put(weighted, part)
        if not any(name in labels for name in self.order):
            return free
        return self._grown() * weighted

    def _each(self) -> list[tuple[str, Mechanism]]:
        return list(zip(self.order, cast(Sequence[Mechanism], self.nodes), strict=True))

    def _grown(self) -> float | Tensor:
        """How far the weights have risen, in [0, 1]."""
        if self.ramp == 0:
            return 1.0
        part = self.progress / self.ramp
        return part.clamp(max=1) if isinstance(part, Tensor) else min(1.0, part)

    def _label(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        """A factor's numbers scaled to [-1, 1], ``[B, 1]``, 0 where unknown, and whether each is known, ``[B]``."""
        low, high = self.ranges[name]
        known = ~values.isnan()
        return (2 * (values.nan_to_num() - low) / (high - low) - 1)[:, None] * known[:, None], known

    def noise(self, z: Tensor) -> Tensor:
        """The noises ``[B, latent]`` that latents ``[B, latent]`` came from: standard normal under the prior."""
        found = z
        for _, node in self._each():
            shift, log_scale = node.affine(z)
            found = node.put(found, log_scale.exp() * node.own(z) + shift)
        return found

    def effects(self, noise: Tensor) -> Tensor:
        """The latents ``[B, latent]`` that noises ``[B, latent]`` lead to; the inverse of `noise`."""
        z = noise
        for _, node in self._each():
            shift, log_scale = node.affine(z)
            z = node.put(z, (node.own(noise) - shift) / log_scale.exp())
        return z

    def log_prob(self, z: Tensor, labels: Labels) -> Tensor:
        """log p(z), ``[B]``; a factor whose label is known has its density given the label, as in `sample`."""
        total: Tensor = torch.distributions.Normal(0.0, 1.0).log_prob(z)
        for name, node in self._each():
            shift, log_scale = self._affine(name, node, z, labels)
            noise = log_scale.exp() * node.own(z) + shift
            total = node.put(total, log_scale - 0.5 * (noise.square() + math.log(2 * math.pi)))
        return total.sum(-1)

    def sample(self, count: int, labels: Labels) -> Tensor:
        noise = normal(count, self.latent, device=self.arrows.device)
        z = noise
        for name, node in self._each():
            shift, log_scale = self._affine(name, node, z, labels)
            z = node.put(z, (node.own(noise) - shift) / log_scale.exp())
        return z

    def _affine(self, name: str, node: Mechanism, z: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Shift and log of the scale that bring a factor's units to noise: given its label, or its causes."""
        shift, log_scale = node.affine(z)
        if name in labels and name in self.told:
            label, known = self._label(name, labels[name].to(z))
            told = node.affine_of_label(label, z)
            shift, log_scale = (
                torch.where(known[:, None], a, b) for a, b in zip(told, (shift, log_scale), strict=True)
            )
        return shift, log_scale

    def settings(self) -> dict[str, tuple[float, float]]:
        return {name: self.ranges[name] for name in self.told}

    def intervene(self, z: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        """The latents ``[B, latent]`` that these would have been, had the factors in ``do`` been set.

        Abduction finds the noises, action sets the factors' units, prediction lets their effects follow with their
        noises kept (Pearl, *Causality*, section 7.1). Units that depend on nothing in ``do`` keep their very numbers.

        Args:
            do: by factor, either its numbers ``[B]``, or units to copy, ``[B, units]``, such as another image's.

        Raises:
            InputError: if a factor is unknown, or its numbers mean nothing because no image told them.
        """
        self.check_do(do)
        noise, moved = self.noise(z), set(do)
        for name, node in self._each():
            if name in do:
                z = node.put(z, do[name] if do[name].ndim == 2 else self._typical(name, node, do[name], z))
            elif moved & set(self.graph[name]):
                moved.add(name)
                shift, log_scale = node.affine(z)
                z = node.put(z, (node.own(noise) - shift) / log_scale.exp())
        return z

    def _typical(self, name: str, node: Mechanism, values: Tensor, z: Tensor) -> Tensor:
        """The mean of a factor's units given its number."""
        label, _ = self._label(name, values.to(z))
        shift, log_scale = node.affine_of_label(label, z)
        return -shift / log_scale.exp()

    def check_do(self, do: Mapping[str, Tensor]) -> None:
        """Raises `InputError` unless every factor is in the graph and its numbers mean something."""
        for name, values in do.items():
            if name not in self.graph:
                raise InputError(f"the graph has no factor {name[:100]!r}; it has {', '.join(self.graph)}.")
            if values.ndim == 2:
                continue
            if name not in self.told:
                raise InputError(
                    f"no training image told its {name}, so a number of it has no place in the latent; copy it from "
                    f"another image instead. Factors with numbers: {', '.join(self.told) or 'none'}."
                )
            low, high = self.ranges[name]
            if not bool(((values >= low) & (values <= high)).all()):
                raise InputError(
                    f"{name} must be in [{low:g}, {high:g}], what the training images showed; received "
                    f"{', '.join(f'{value:g}' for value in values[:3].tolist())}."
                )

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        arrows = state.get(f"{prefix}arrows")
        if arrows is not None and not torch.equal(arrows.to(self.arrows), self.arrows):
            found = [
                f"{cause} -> {name}"
                for name, row in zip(self.order, arrows.tolist(), strict=False)
                for cause, arrow in zip(self.order, row, strict=False)
                if arrow
            ]
            raise InputError(
                f"the weights are of a prior with another graph than its config's: {', '.join(found) or 'no arrow'}. "
                "Take the config and the weights of one run."
            )
        super()._load_from_state_dict(state, prefix, *rest)


def _kl_from_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL of normal densities from the standard one, in nats."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
