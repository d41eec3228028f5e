"""Names of methods in results, and whether the training seeds of one method are of one recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from episodes.paths import expanded
from metagvae.encoders.joined import joined_name, parts
from metagvae.evaluation.over_seeds import seed_named, stem
from metagvae.zoo.trained import Trained

SEED_OWN = ("run", "taught_by")  # sections that differ between seeds of one recipe
PLACES = ("data.root", "encoder.source", "teacher.sources")  # settings that name other folders there


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last folder of each name, or all of it where methods of other folders are called alike but for the seed.

    Example:
        >>> from metagvae.studies.naming import short_names
        >>> short_names(["runs/a-seed0", "runs/a-seed1", "old/b-seed0", "new/b-seed1"])["new/b-seed1"]
        'new/b-seed1'
        >>> short_names(["runs/a-seed0", "runs/a-seed1"])["runs/a-seed1"]
        'a-seed1'
    """
    folders: dict[str, set[tuple[Path, ...]]] = defaultdict(set)
    for name in names:  # the folder that a run lies in, however it is spelt; the run itself may be a link
        folders[stem(joined_name(name))].add(tuple(expanded(part).parent.resolve() for part in parts(name)))
    return {name: name if len(folders[stem(joined_name(name))]) > 1 else joined_name(name) for name in names}


def unlike_seeds(runs: Mapping[str, Trained]) -> list[str]:
    """A sentence for each method whose training seeds differ in more than the seed, in settings that both know.

    Args:
        runs: by the name of each in results.
    """
    groups: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, run in runs.items():
        if seed_named(name) is not None and run.is_run:
            groups[stem(name)][name] = _settings(run.config)
    notes = []
    for method, members in groups.items():
        first, *others = members
        for other in others:
            one, two = members[first], members[other]
            differing = sorted(key for key in one.keys() & two.keys() if one[key] != two[key])
            if differing:
                notes.append(
                    f"{method}: {first} and {other} differ in {', '.join(differing)}, and count as seeds of one "
                    "method. If they are not, name them differently."
                )
    return notes


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe by their names such as ``optim.steps``; folders without the seed they end in."""
    found: dict[str, Any] = {}
    for section, content in config.items():
        if section in SEED_OWN:
            continue
        settings = {f"{section}.{key}": value for key, value in content.items()} if isinstance(content, dict) else {}
        found |= settings or {section: content}
    for key in PLACES:
        found.pop(key, None)
    return found
