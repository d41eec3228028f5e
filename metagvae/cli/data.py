"""`metagvae data list | fetch | check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say
from metagvae.compute.processes import ranks


def data_list() -> None:
    """Name every data set, its splits' kind and licence."""
    from episodes.datasets import DATASETS

    for name, cls in sorted(DATASETS.items()):
        first = (cls.__doc__ or "").strip().splitlines()[0]
        say(f"{name:14} {cls.default_size}x{cls.default_size}x{cls.channels}  {cls.licence}\n{'':14} {first}")


def data_fetch(name: str, folder: str | None = None) -> None:
    """Download a data set that has an upstream, checked by hash where upstream gives one.

    Args:
        name: omniglot | miniimagenet | mnist | udhr.
        folder: where to; leave out for ./data/NAME, where it is looked for by itself.
    """
    from episodes.datasets import make_dataset

    target = expanded(folder) if folder is not None else Path("data") / name
    dataset = make_dataset(name)
    check_writable(str(target / "x"))
    dataset.fetch(target)
    say(f"fetched {name} into {target}")


def data_check(
    name: str,
    root: str | None = None,
    size: int | None = None,
    options: dict[str, Any] | None = None,
) -> None:
    """Load every split of a data set and report counts, sizes, duplicates and skipped files.

    Args:
        name: a registered data set, or the path of a folder of pictures.
        root: where its pictures are.
        size: side of the pictures in pixels.
        options: further options of that data set.
    """
    from episodes.datasets import DATASETS, make_dataset
    from episodes.datasets.check import check_dataset

    if name not in DATASETS and expanded(name).exists():
        if root is not None:
            raise InputError(f"--root goes with the name of a data set; {name} is where the images are. Leave it out.")
        name, root = "folder", name
    elif name not in DATASETS:
        raise InputError(f"there is no folder {name} here; known data sets: {', '.join(sorted(DATASETS))}.")
    elif root is None and name in DATASETS and expanded(name).is_dir():
        ranks().tell(f"this is the data set '{name}'; the folder of that name here is ./{name}")
    if root is not None and name in DATASETS and not DATASETS[name].reads_root:
        raise InputError(f"--root {root}: the data set '{name}' reads no files; leave it out.")
    say(check_dataset(make_dataset(name, options, root=root, size=size)))
