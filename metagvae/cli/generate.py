"""`metagvae generate`: images drawn by a trained VAE."""

from __future__ import annotations

from episodes.errors import InputError
from episodes.paths import expanded
from metagvae.cli.outputs import check_writable, say
from metagvae.studies.generation import Drawing, Generation


def generate(
    run: str,
    drawing: Drawing,
    out: str = "generated",
    data: str | None = None,
    root: str | None = None,
    device: str = "auto",
) -> None:
    """Images drawn by a trained VAE: samples, traversals of named units, interpolations, poses, attributes.

    Args:
        run: a shipped generator, or the folder of a finished `metagvae pretrain`.
        out: the folder for the grids (.png, .svg) and the arrays (.npz: images uint8, latents float32); a file of the
            same name from an earlier call is replaced.
        data: data set of --start data and --draw attribute; leave out for the run's own.
        root: where its images are; leave out to look under METAGVAE_DATA and ./data.
        device: auto | cpu | cuda.
    """
    from metagvae import zoo
    from metagvae.compute.device import Device
    from metagvae.report.drawings import write_drawing

    for name, given in (("data", data), ("root", root)):
        if given is not None and not drawing.needs_data:
            raise InputError(f"--{name} goes with --start data or --draw attribute: nothing else looks at images.")
    folder = expanded(out)
    for kind in drawing.kinds:
        check_writable(*(str(folder / f"{kind}.{ending}") for ending in ("png", "svg", "npz")))
    trained = zoo.open(run)
    if (folder / "config.yaml").is_file() or (folder / "config.json").is_file():
        raise InputError(f"{folder} holds a run or an encoder; choose another --out.")
    vae = trained.vae()
    Device.choose(device).place(vae)
    made = Generation(vae, drawing, trained.dataset(data, root) if drawing.needs_data else None)
    drawn = {kind: made.draw(kind) for kind in drawing.kinds}  # all of them before the first file
    for kind, images in drawn.items():
        paths = write_drawing(images, kind, made, folder, trained.card.name)
        say("wrote " + ", ".join(str(path) for path in paths))
