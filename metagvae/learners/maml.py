"""Model-agnostic meta-learning (Finn, Abbeel & Levine, ICML 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from episodes import EpisodeBatch, InputError
from metagvae.compute.device import channels_last
from metagvae.encoders.norm import full_precision, norm_policy, task_rows
from metagvae.encoders.running_averages import averages_as_they_stand, averaging_layers
from metagvae.learners.base import LEARNERS, episode_loss, shortened
from metagvae.learners.gradient_parts import GradientPart, gradient_part, joined_parts
from metagvae.learners.inner_loop import InnerLoop, InnerLoopLearner, weighted_sum
from metagvae.learners.threads import solve_in_threads

BATCHING = ("auto", "loop", "vmap")
Weights = dict[str, Tensor]


@dataclass
class MAMLState:
    """Weights that MAML adapted to T support sets.

    Args:
        fast: adapted weights by parameter name; stacked ``[T, ...]``, or one dictionary per task.
        support: ``[T, N * K, C, H, W]`` if the queries are normalised with its statistics.
    """

    fast: Weights | list[Weights]
    support: Tensor | None


@LEARNERS.register
class MAML(InnerLoopLearner):
    """Every weight takes gradient steps on the support's cross entropy, from a learnt start (algorithm 2).

        theta_i = theta - alpha grad_theta L(support_i; theta)        one inner step (section 2.2)
        theta  <- theta - beta grad_theta sum_i L(query_i; theta_i)   the outer loop's (eq. 1)

    with the second derivatives exact; ``first_order`` leaves them out (section 5.2) and does no work on them. The
    options that come last are later cures, see `InnerLoop`.

    The encoder's norm policy decides whose statistics a task's pictures meet: ``support``, the support set's,
    in the inner steps and for the queries; ``transductive``, those of the pictures being embedded, so the
    queries' own for the queries (what the paper's code does); ``group``, each picture's own; ``running``, the
    running averages as they stand. These are never updated here, in training either, so ``running`` is for
    a pretrained encoder.

    All parameters of encoder and head adapt, those with ``requires_grad`` off as well: that says what the outer loop
    trains.

    Args:
        encoder, way: see `InnerLoopLearner`.
        inner_lr, inner_steps, eval_inner_steps, first_order: see `InnerLoop`. The defaults are the paper's for 5-way
            Omniglot; for miniImageNet it takes 0.01, 5 and 10.
        batching: ``loop`` over tasks, ``vmap`` for all in one pass, ``auto`` for loop on a CPU and vmap on an
            accelerator. They give the same numbers. A vmapped convolution with weights per task is a grouped
            one, which CPUs run more slowly than a loop.
        chunk: tasks whose graphs are kept at once in training; 0 for one in a loop and 32 under vmap.
        threads: tasks that a processor trains on side by side, each on one core; 0 for as many as torch has
            threads. With 1 a step takes longer and the memory of one graph.
        recompute: keep no graph of an inner step, compute it again when the outer gradient comes by: the memory
            of one inner step for however many, in a loop and second order.
        second_order_from, rates, every_loss_until, head, head_lr, normalise: see `InnerLoop`; off by
            default.

    Raises:
        InputError: if an option is not allowed; at the first episode, if the running averages of a
            ``running`` encoder have never been trained.

    Example:
        >>> import torch
        >>> from metagvae import Encoder, EncoderConfig
        >>> from metagvae.learners import MAML
        >>> learner = MAML(Encoder(EncoderConfig(width=8, latent=6, norm="support")), way=5).eval()
        >>> learner.predict(learner.adapt(torch.rand(2, 5, 1, 1, 28, 28)), torch.rand(2, 5, 3, 1, 28, 28)).shape
        torch.Size([2, 15, 5])
    """

    name = "maml"
    needs_float32 = True  # in bfloat16 the outer gradient's cosine to float32's is 0.77 to 0.97

    def __init__(
        self,
        encoder: nn.Module,
        way: int,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
        eval_inner_steps: int | None = None,
        first_order: bool = False,
        batching: str = "auto",
        chunk: int = 0,
        threads: int = 0,
        recompute: bool = False,
        second_order_from: float = 0.0,
        rates: str = "fixed",
        every_loss_until: float = 0.0,
        head: str = "learnt",
        head_lr: float | None = None,
        normalise: float = 0.0,
    ) -> None:
        cures = second_order_from, rates, every_loss_until, head, head_lr, normalise
        super().__init__(encoder, way, InnerLoop(inner_lr, inner_steps, eval_inner_steps, first_order, *cures))
        if batching not in BATCHING:
            raise InputError(f"maml's batching must be one of {', '.join(BATCHING)}; received {batching!r}.")
        if chunk < 0 or threads < 0:
            raise InputError(f"maml's chunk and threads must be at least 0; received {chunk} and {threads}.")
        self.chunk, self.threads, self.recompute = chunk, threads, recompute
        # vmap's rule for batch norm with affine weights gives silently wrong second derivatives
        foreign = next((layer for layer in encoder.modules() if isinstance(layer, _BatchNorm)), None)
        if foreign is not None and batching == "vmap":
            raise InputError(
                f"maml cannot run an encoder with {type(foreign).__name__} under vmap: torch's second "
                "derivatives are wrong there. Use batching 'loop', or metagvae.encoders.norm.Norm2d."
            )
        self.batching = "loop" if foreign is not None else batching
        self._averages_checked = False
        self._moved: dict[tuple[str, ...], list[str]] = {}

    def _vmapped(self, images: Tensor) -> bool:
        return self.batching == "vmap" or (self.batching == "auto" and images.device.type != "cpu")

    def _check_averages(self) -> None:
        # not at construction: the weights may be loaded between that and the first episode
        if self._averages_checked:
            return
        layers = averaging_layers(self.encoder)
        untouched = [
            not layer.get_buffer("running_mean").any() and bool((layer.get_buffer("running_var") == 1).all())
            for layer in layers
        ]
        if layers and all(untouched):
            raise InputError(
                "maml uses the encoder's running averages as they stand, and they are at their initial "
                "values: nothing would be normalised. Load a pretrained encoder, or set encoder.norm to "
                "'support', 'group' or 'transductive'."
            )
        self._averages_checked = True

    def _start(self, way: int) -> Weights:
        """Where the inner loop of an episode begins, by name: all weights but its own rates."""
        start: Weights = {f"encoder.{name}": weight for name, weight in self.encoder.named_parameters()}
        start["head.weight"], start["head.bias"] = self.head_start(way)
        return start

    def _logits(self, fast: Weights, rows: Tensor) -> Tensor:
        """``[M, N]`` of one task's rows ``[M, C, H, W]`` under weights ``fast``."""
        prefix = "encoder."
        weights = {name[len(prefix) :]: value for name, value in fast.items() if name.startswith(prefix)}
        features = shortened(functional_call(self.encoder, weights, (rows,)), self.options.normalise)
        return F.linear(features, fast["head.weight"], fast["head.bias"])

    def _loss(self, fast: Weights, rows: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(full_precision(self._logits(fast, rows)), labels)

    def _moving(self, start: Weights, rows: Tensor, labels: Tensor) -> list[str]:
        """Names of the weights that a support's loss depends on, looked for at the first one: no others move."""
        asked = tuple(getattr(self.encoder, "features", ()))
        if asked not in self._moved:
            point = {name: value.detach().requires_grad_() for name, value in start.items()}
            with torch.enable_grad():
                loss = self._loss(point, rows, labels)
            slopes = torch.autograd.grad(loss, list(point.values()), allow_unused=True)
            self._moved[asked] = [name for name, slope in zip(point, slopes, strict=True) if slope is not None]
        return self._moved[asked]

    def _fit_vmapped(
        self, start: Weights, names: list[str], labels: Tensor, every: bool, rows: Tensor
    ) -> list[Weights]:
        """The adapted weights of one task from its support rows ``[N * K, C, H, W]``, those of ``names``, for vmap.

        Args:
            every: those after every inner step; else the last alone.
        """
        places = [place for place, name in enumerate(start) if name in names]
        moving = {name: start[name] for name in names}
        sizes = [weight.numel() for weight in moving.values()]

        def parted(flat: Tensor) -> Weights:
            parts = zip(moving.items(), flat.split(sizes), strict=True)
            return {**start, **{name: part.view_as(weight) for (name, weight), part in parts}}

        def loss(flat: Tensor) -> Tensor:
            return self._loss(parted(flat), rows, labels)

        flat = torch.cat([weight.reshape(-1) for weight in moving.values()])  # so that a step is one subtraction
        found = []
        for step in range(self.steps):
            # torch.func.grad differentiates under no_grad too, and keeps a graph only outside of it
            with self.inner_grad_mode():
                slope = grad(loss)(flat)
            flat = flat - self._flat_rate(self.step_rates(step, len(start["head.bias"])), places, sizes) * self.counted(
                slope
            )
            found.append(flat)
        return [parted(flat) for flat in (found if every else found[-1:])]

    def _flat_rate(self, rates: Sequence[float | Tensor], places: list[int], sizes: list[int]) -> float | Tensor:
        """The rate of each number of the weights in ``places``, of so many numbers each."""
        if self.rates is None and self.options.head_lr is None:
            return self.options.inner_lr
        like = self.head.weight.new_tensor
        known = [rate if isinstance(rate, Tensor) else like(rate) for rate in rates]
        return torch.cat([known[place].expand(size) for place, size in zip(places, sizes, strict=True)])

    def _fit(self, start: Weights, labels: Tensor, every: bool, rows: Tensor) -> list[Weights]:
        """The same for a loop over tasks, where plain autograd costs less than torch.func."""
        through = self.second_order
        names, values = zip(*start.items(), strict=True)

        def step(rates: Sequence[float | Tensor], *fast: Tensor) -> tuple[Tensor, ...]:
            # its contexts are its own: it may run again when those of its caller are gone
            contexts = averages_as_they_stand(self.encoder), task_rows(self.encoder, 1, None, True, through)
            with torch.enable_grad(), contexts[0], contexts[1]:
                # where no graph leads on to the start, the slopes are taken at a copy that is a leaf
                point = [v if through and v.requires_grad else v.detach().requires_grad_() for v in fast]
                loss = self._loss(dict(zip(names, point, strict=True)), rows, labels)
                slopes = torch.autograd.grad(loss, point, create_graph=through, allow_unused=True)
            return tuple(
                value if slope is None else value - rate * self.counted(slope)
                for value, slope, rate in zip(fast, slopes, rates, strict=True)
            )

        found = []
        for number in range(self.steps):
            rates = self.step_rates(number, len(start["head.bias"]))
            if through and self.recompute:
                values = checkpoint(step, rates, *values, use_reentrant=False, preserve_rng_state=False)
            else:
                values = step(rates, *values)
            found.append(values)
        return [dict(zip(names, values, strict=True)) for values in (found if every else found[-1:])]

    def adapt(self, support: Tensor) -> MAMLState:
        return self._states(support, every=False)[-1]

    def _states(self, support: Tensor, every: bool) -> list[MAMLState]:
        """The states after every inner step, or the last alone."""
        way, shot = support.shape[1:3]
        start = self._start(way)
        self._check_averages()
        labels = torch.arange(way, device=support.device).repeat_interleave(shot)
        rows = support.flatten(1, 2)
        found: Sequence[Weights | list[Weights]]
        vmapped = self._vmapped(support)
        with averages_as_they_stand(self.encoder), task_rows(self.encoder, 1, None, not vmapped, vmapped):
            if vmapped:
                fit = partial(self._fit_vmapped, start, self._moving(start, rows[0], labels), labels, every)
                found = vmap(fit, randomness="different")(rows)
            else:
                tasks = [self._fit(start, labels, every, channels_last(task)) for task in rows]
                found = [list(weights) for weights in zip(*tasks, strict=True)]
        kept = rows if norm_policy(self.encoder) == "support" else None
        return [MAMLState(fast, kept) for fast in found]

    def predict(self, state: MAMLState, query: Tensor) -> Tensor:
        self.check_way(query.shape[1])
        rows = query.flatten(1, 2)
        lead = 0
        if state.support is not None:
            lead = state.support.shape[1]
            rows = torch.cat([state.support, rows], 1)
        vmapped = isinstance(state.fast, dict)
        with averages_as_they_stand(self.encoder), task_rows(self.encoder, 1, lead or None, not vmapped, vmapped):
            if isinstance(state.fast, dict):
                logits = vmap(self._logits, randomness="different")(state.fast, rows)
            else:
                tasks = zip(state.fast, rows, strict=True)
                logits = torch.stack([self._logits(fast, channels_last(task)) for fast, task in tasks])
        return logits[:, lead:]

    def forward(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Loss and logits, see `Learner`; where a graph is wanted, it is kept for few tasks at a time.

        Each chunk's part of the outer gradient is taken at once and its graph let go, so that the memory of a
        step does not grow with its tasks. The loss returned gives these gradients when it is differentiated; the
        logits carry none.
        """
        if not torch.is_grad_enabled() or not self._trained():
            return self._objective(batch)
        if self._vmapped(batch.images):
            parts = [self._part(batch, (0, 1), self.chunk or 32)]
        else:
            threads = min(self.threads or torch.get_num_threads(), batch.tasks) if batch.images.is_cpu else 1
            if threads == 1:
                parts = [self._part(batch, (0, 1), self.chunk or 1)]
            else:
                parts = solve_in_threads(
                    self, threads, lambda learner, number: learner._part(batch, (number, threads), self.chunk or 1)
                )
        return joined_parts(parts, self._trained())

    def _trained(self) -> list[nn.Parameter]:
        return [weight for weight in self.parameters() if weight.requires_grad]

    def _part(self, batch: EpisodeBatch, share: tuple[int, int], chunk: int) -> GradientPart:
        return gradient_part(self._objective, self._trained(), batch, share, chunk)

    def _objective(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """The outer loop's loss, of one inner step or of all, and the logits after the last."""
        counts = self.loss_weights()
        states = self._states(batch.support, every=counts is not None)
        losses = []
        for state in states:
            logits = self.predict(state, batch.query)
            losses.append(episode_loss(logits, batch.query_labels))
        if counts is None:
            return losses[-1], logits
        return weighted_sum(counts, losses), logits
