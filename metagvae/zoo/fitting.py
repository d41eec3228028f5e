"""Whether foreign weights fit a network by name and shape, and the options that would make them fit."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from shlex import quote

from torch import Tensor

from episodes import InputError
from metagvae.zoo.state_dicts import listed, renamed

_MOST_PARTS, _MOST_LENGTH, _MOST_TRIED = 8, 200, 8  # of a name, in characters, prefixes: a stranger made the names

Shapes = Mapping[str, tuple[int, ...]]


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Shapes by name, without the counter that torch's own BatchNorm keeps and this package does without."""
    return {n: tuple(value.shape) for n, value in tensors.items() if not n.endswith("num_batches_tracked")}


@dataclass(frozen=True)
class Fit:
    """How given weights compare with those of a network; each list is sorted."""

    given: Shapes
    needed: Shapes

    @property
    def matched(self) -> list[str]:
        return sorted(n for n in self.needed.keys() & self.given.keys() if self.needed[n] == self.given[n])

    @property
    def misshapen(self) -> list[str]:
        return sorted(n for n in self.needed.keys() & self.given.keys() if self.needed[n] != self.given[n])

    @property
    def missing(self) -> list[str]:
        return sorted(self.needed.keys() - self.given.keys())

    @property
    def unexpected(self) -> list[str]:
        return sorted(self.given.keys() - self.needed.keys())

    @property
    def lacks_latent(self) -> bool:
        """Whether what is missing is the whole latent layer and nothing else."""
        return bool(self.missing) and set(self.missing) == latent_layer(self.needed)

    def fits(self, without_latent: bool = False) -> bool:
        """Whether nothing is missing (but the latent layer, with ``without_latent``), unexpected or misshapen."""
        missing = self.missing and not (without_latent and self.lacks_latent)
        return not (missing or self.misshapen or self.unexpected)

    @property
    def most(self) -> bool:
        """Whether at least half of what is not the latent layer is matched."""
        backbone = self.needed.keys() - latent_layer(self.needed)
        return 2 * len(backbone & set(self.matched)) >= len(backbone) > 0

    def report(self) -> str:
        """The names on each side, one a line."""
        lines = [f"matched: {len(self.matched)} of {len(self.needed)}"]
        lines += [f"  {name} {list(self.needed[name])}" for name in self.matched]
        lines += [f"of another shape: {len(self.misshapen)}"]
        lines += [
            f"  {name}: received {list(self.given[name])}, needed {list(self.needed[name])}" for name in self.misshapen
        ]
        lines += [f"missing: {len(self.missing)}", *(f"  {name} {list(self.needed[name])}" for name in self.missing)]
        lines += [f"unexpected: {len(self.unexpected)}"]
        lines += [f"  {name[:_MOST_LENGTH]} {list(self.given[name])}" for name in self.unexpected]
        return "\n".join(lines)


def latent_layer(needed: Shapes) -> set[str]:
    """Names of the layers that make the posterior."""
    return {name for name in needed if name.startswith(("to_mean.", "to_log_var."))}


def fitting_prefixes(given: Shapes, needed: Shapes) -> list[dict[str, str]]:
    """Prefix maps of at most one prefix under which most of a network is matched, the best first."""
    suffixes: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, shape in needed.items():
        for before, after in _cuts(name):
            suffixes[after, shape].append(before)
    votes: Counter[tuple[str, str]] = Counter()
    for name, shape in given.items():
        for before, after in _cuts(name):  # the longest common ending first
            if (after, shape) in suffixes:
                votes.update((before, theirs) for theirs in suffixes[after, shape])
                break
    tried = [{}, *({old: new} for (old, new), _ in votes.most_common(_MOST_TRIED) if old != new)]
    fits = [(prefix, _under(given, needed, prefix)) for prefix in tried]
    good = [(len(fit.matched), prefix) for prefix, fit in fits if fit is not None and fit.most]
    best = max((count for count, _ in good), default=0)
    return [prefix for count, prefix in good if count == best]


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """A name cut in two before each of its parts, ``module.blocks.0`` into ("", all), ("module.", "blocks.0"), ..."""
    parts = name.split(".") if len(name) <= _MOST_LENGTH else []
    for place in range(max(0, len(parts) - _MOST_PARTS), len(parts)):
        before = ".".join(parts[:place])
        yield f"{before}." if place else "", ".".join(parts[place:])


def _under(given: Shapes, needed: Shapes, prefix: Mapping[str, str]) -> Fit | None:
    try:
        return Fit(renamed(given, prefix), needed)
    except InputError:  # two weights would get one name
        return None


def advice(given: Shapes, needed: Shapes) -> str:
    """A sentence with the options of ``import-encoder`` that make the weights fit, or come nearest to it."""
    offers = []
    for prefix in fitting_prefixes(given, needed)[:3]:
        fit = _under(given, needed, prefix)
        assert fit is not None
        patterns = _patterns(fit)
        whole = not fit.misshapen and (not fit.missing or fit.lacks_latent)
        words = [f"--prefix {quote(json.dumps(prefix))}"] if prefix else []
        words += [" ".join(["--drop", *map(quote, patterns)])] if patterns else []
        words += ["--allow_missing_latent true"] if fit.lacks_latent else []
        if whole:
            offers.append(f"they fit with {' '.join(words)}" if words else "they fit without --prefix and --drop")
        elif words:
            offers.append(f"{len(fit.matched)} of {len(needed)} match with {' '.join(words)}")
    first = f"{', or '.join(offers)}." if offers else "No prefix would match most of them."
    return f"{first[0].upper()}{first[1:]} Otherwise the config must name the network's own width, size and latent."


def _patterns(fit: Fit) -> list[str]:
    """Few patterns that match every unexpected name and none that is needed, for ``--drop``."""
    needed = {before for name in fit.needed for before, _ in _cuts(name)}
    patterns: dict[str, None] = {}
    for name in fit.unexpected:
        groups = [before for before, _ in _cuts(name)]
        foreign = next((group for group in groups if group not in needed), None)
        patterns[escape(name) if foreign is None else f"{escape(foreign)}*"] = None
    return list(patterns)


def choose(found: Mapping[str, Mapping[str, Tensor]], needed: Shapes, key: str | None, where: str) -> str:
    """The state dict that is meant, by name: ``key``, the only one, or the only one that fits most of a network.

    Raises:
        InputError: if there is no ``key``, or several could be meant.
    """
    sizes = listed([f"{name or 'the top level'} ({len(tensors)} tensors)" for name, tensors in found.items()])
    if key is not None:
        if key not in found:
            raise InputError(f"{where} has no state dict {key[:100]!r}; it holds {sizes}.")
        return key
    if len(found) == 1:
        return next(iter(found))
    fitting = [name for name, tensors in found.items() if fitting_prefixes(shapes(tensors), needed)]
    if len(fitting) == 1:
        return fitting[0]
    choices = " or ".join(f"--key {quote(name)}" for name in (fitting or list(found))[:5])
    raise InputError(
        f"{where} holds {len(found)} state dicts: {sizes}. {len(fitting) or 'None'} of them "
        f"{'could be meant' if fitting else 'fits this encoder by itself'}; say which, by {choices}."
    )
