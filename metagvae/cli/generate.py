"""`metagvae generate`: images drawn by a trained VAE."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say


def generate(
    run: str,
    out: str = "generated",
    draw: list[str] | None = None,
    count: int = 100,
    start: str = "prior",
    units: list[str] | None = None,
    keep: list[str] | None = None,
    attribute: str | None = None,
    data: str | None = None,
    root: str | None = None,
    split: str = "test",
    temperature: float = 1.0,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Images drawn by a trained VAE: samples, traversals of named units, interpolations, poses, attributes.

    Args:
        run: a shipped generator, or the folder of a finished `metagvae pretrain`.
        out: the folder for the grids (.png, .svg) and the arrays (.npz: images uint8, latents float32); a file of the
            same name from an earlier call is replaced.
        draw: what to draw, some of samples, traversals, interpolations, exchange (a row keeps the units of --keep, a
            column gives the others) and attribute; leave out for samples and traversals.
        count: samples.
        start: prior | data; where the latents of all but the samples come from: draws, or images of the data set.
        units: names or numbers of the units to traverse, such as rotation; leave out for all guided ones.
        keep: groups of units that a row of exchange keeps; leave out for content.
        attribute: group of units that --draw attribute sets to each of its values.
        data: data set of --start data and --draw attribute; leave out for the run's own.
        root: where its images are; leave out to look under METAGVAE_DATA and ./data.
        split: test | validation | train; of --start data.
        temperature: divides the logits before the sigmoid; below 1 draws harder edges.
        seed: of the draws; the same seed gives the same files.
        device: auto | cpu | cuda.
    """
    from metagvae import zoo
    from metagvae.compute.device import Device
    from metagvae.report.drawings import write_drawing
    from metagvae.studies.generation import Drawing, Generation

    asked = Drawing(
        list(dict.fromkeys(draw or ["samples", "traversals"])),
        count,
        start,
        units or [],
        keep or ["content"],
        attribute,
        split,
        temperature,
        seed,
    )
    folder = expanded(out)
    for kind in asked.kinds:
        check_writable(*(str(folder / f"{kind}.{ending}") for ending in ("png", "svg", "npz")))
    trained = zoo.open(run)
    if (folder / "config.yaml").is_file() or (folder / "config.json").is_file():
        raise InputError(f"{folder} holds a run or an encoder; choose another --out.")
    vae = trained.vae()
    placed = Device.choose(device)
    placed.place(vae)
    dataset = None
    if asked.needs_data:
        dataset = trained.dataset(data, root)
    made = Generation(vae, asked, dataset)
    drawn = {kind: made.draw(kind) for kind in asked.kinds}  # all of them before the first file
    for kind, images in drawn.items():
        paths = write_drawing(images, kind, made, folder, trained.card.name)
        say("wrote " + ", ".join(str(path) for path in paths))
