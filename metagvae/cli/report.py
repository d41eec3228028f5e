"""`metagvae report`: one HTML file about a run, or comparing several."""

from __future__ import annotations

from episodes import InputError
from metagvae.cli.outputs import check_folder_of, check_writable, say


def report(
    runs: list[str],
    out: str | None = None,
    way: int | None = None,
    shot: list[int] | None = None,
    query: int | None = None,
    episodes: int = 600,
    seed: int = 0,
    split: str = "test",
    device: str = "auto",
) -> None:
    """One HTML file about a run, or comparing several, with everything inside it.

    Args:
        runs: one or more folders of finished pretraining or training runs.
        out: the file to write; leave out for report.html in the run's folder, or comparison.html here for several.
        way: classes per episode; leave out for 5, or what the data can give.
        shot: support pictures per class, one or more numbers; leave out for 1 and 5.
        query: query pictures per class; leave out for 15, or what the data can give.
        episodes: how many per shape.
        seed: of the episodes.
        split: test | validation | train; of the pictures that are shown and measured on.
        device: auto | cpu | cuda.
    """
    from metagvae.compute.device import Device
    from metagvae.report import write_report
    from metagvae.report.write import report_path

    check_writable(out, inputs=runs)
    place = report_path(runs, out)
    if place.is_dir():
        raise InputError(f"cannot write {place}: it is a folder; give --out the name of a file.")
    if place.parent.is_dir():  # else there is no such run, as is said next
        check_folder_of(place)
    path = write_report(runs, out, way, shot, query, episodes, seed, split, Device.choose(device))
    say(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB; it needs no other file")
