"""The command line, a thin skin over the functions: `metagvae pretrain | train | evaluate | ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from episodes.errors import InputError


def evaluate(
    data: str | None = None,
    root: str | None = None,
    size: int | None = None,
    rotations: str | None = None,
    data_options: dict[str, Any] | None = None,
    run: list[str] | None = None,
    encoder: list[str] | None = None,
    features: list[str] | None = None,
    head: str = "prototypes",
    head_options: dict[str, Any] | None = None,
    way: list[int] | None = None,
    shot: list[int] | None = None,
    query: int = 15,
    episodes: int = 1000,
    seed: int = 0,
    split: str = "test",
    fit_data: str | None = None,
    device: str = "auto",
    json: str | None = None,
    figure: str | None = None,
) -> None:
    """Few-shot error of runs and encoders on the same episodes, with intervals and paired differences.

    Args:
        data: a registered data set; leave out for the first run's. What is not said of a run's own data set is
            taken from the run.
        root: where its pictures are; leave out to look under METAGVAE_DATA and ./data.
        size: side of the pictures in pixels; leave out for the data set's usual one.
        rotations: none | classes | episode.
        data_options: further options of that data set.
        run: folders of finished runs; names that differ in a trailing -seedN are joined.
        encoder: pixels, pca, random, a shipped name, an encoder folder or a run folder.
        features: what encoders return: latent, backbone, or groups such as content.
        head: for --encoder: prototypes | ridge.
        head_options: options of that head, such as distance: cosine.
        way: classes per episode, one or more numbers.
        shot: support pictures per class, one or more numbers.
        query: query pictures per class.
        episodes: how many episodes per shape.
        seed: of the episodes; the same seed gives the same episodes everywhere.
        split: test | validation | train.
        fit_data: the data set whose training split pca and random are fitted on; leave out for --data.
        device: auto | cpu | cuda.
        json: file to write results to.
        figure: file (.png or .svg) to draw error bars to.
    """
    from episodes.datasets import make_dataset
    from metagvae.compare import choose_dataset, compare
    from metagvae.device import Device

    _writable(json, figure)
    if figure and Path(figure).suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--figure must end in .png, .svg or .pdf; received {figure}.")
    sources = [*(run or []), *(encoder or [])]
    comparison = compare(
        choose_dataset(sources, data, root, size, rotations, data_options),
        encoders=encoder or [],
        runs=run or [],
        ways=way or [5],
        shots=shot or [1],
        query=query,
        episodes=episodes,
        seed=seed,
        split=split,
        head=head,
        head_options=head_options,
        features=features,
        device=Device.choose(device),
        fit_data=make_dataset(fit_data, size=size) if fit_data else None,
    )
    print(comparison.table())
    if json:
        comparison.save(Path(json))
    if figure:
        from metagvae.figures import error_bars

        error_bars(comparison.results, Path(figure))


def _writable(*paths: str | None) -> None:
    """Makes the outputs' folders, and raises before long work if one cannot be written to."""
    import os

    for path in paths:
        if path is None:
            continue
        folder = Path(path).expanduser().absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {path}: {folder} cannot be made ({error.strerror}).") from error
        if not os.access(folder, os.W_OK):
            raise InputError(f"cannot write {path}: you may not write to {folder}. Choose another place.")


def import_encoder(
    weights: str,
    config: str,
    out: str | None = None,
    prefix: dict[str, str] | None = None,
    dry_run: bool = False,
    allow_missing_latent: bool = False,
) -> None:
    """Bring a foreign state dict in as an encoder folder.

    Args:
        weights: a .safetensors file, or a torch file, which is read with weights only.
        config: YAML or JSON file with the encoder's settings, such as {width: 64, channels: 1, size: 28}.
        out: the encoder folder to write; not needed with --dry_run.
        prefix: prefixes to replace in names, such as {"module.": "", "features.": "backbone.blocks."}.
        dry_run: only report matched, missing and unexpected names.
        allow_missing_latent: accept weights without a latent layer (a plain backbone); it is left as initialised
            and the encoder's features become the backbone's.
    """
    from metagvae.importing import import_weights

    print(
        import_weights(
            Path(weights),
            Path(config),
            Path(out).expanduser() if out else None,
            prefix or {},
            dry_run,
            allow_missing_latent,
        )
    )


def export_encoder(source: str, out: str, features: list[str] | None = None, name: str | None = None) -> None:
    """Copy an encoder out of a run (or a shipped one) into a folder of its own, with its card.

    Args:
        source: a run folder, an encoder folder or a shipped name.
        out: the folder to write config.json and model.safetensors to.
        features: what a call of it returns; leave out to keep the stored choice.
        name: the encoder's name on its card; leave out for the folder's.
    """
    from dataclasses import replace

    from metagvae.checkpoints import card_text, load_encoder, read_card, save_encoder
    from metagvae.runs import write_beside

    out = str(Path(out).expanduser())
    _writable(str(Path(out) / "config.json"))
    if (Path(out) / "config.json").exists():
        raise InputError(f"{out} already holds an encoder; choose another folder.")
    encoder, card = load_encoder(source, features), replace(read_card(source), name=name or Path(out).name)
    save_encoder(encoder, out, card)
    write_beside(Path(out) / "README.md", card_text(card, encoder.config).encode())
    print(f"wrote config.json, model.safetensors and README.md into {out}")


def data_list() -> None:
    """Name every data set, its splits' kind and licence."""
    from episodes.datasets import DATASETS

    for name, cls in sorted(DATASETS.items()):
        first = (cls.__doc__ or "").strip().splitlines()[0]
        print(f"{name:14} {cls.default_size}x{cls.default_size}x{cls.channels}  {cls.licence}\n{'':14} {first}")


def data_fetch(name: str, folder: str | None = None) -> None:
    """Download a data set that has an upstream, checked by hash where upstream gives one.

    Args:
        name: omniglot | miniimagenet.
        folder: where to; leave out for ./data/NAME, where it is looked for by itself.
    """
    from episodes.datasets import make_dataset

    target = Path(folder) if folder else Path("data") / name
    dataset = make_dataset(name)
    _writable(str(target / "x"))
    dataset.fetch(target)
    print(f"fetched {name} into {target}")


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

    if name not in DATASETS and Path(name).exists():
        name, root = "folder", name
    print(check_dataset(make_dataset(name, root=root, size=size, **(options or {}))))


def _pretrain(config: Any) -> None:
    from metagvae import figures
    from metagvae.pretraining import pretrain

    vae = pretrain(config)
    folder = Path(config.run.folder)
    bank = config.data.make().load("train")
    figures.reconstructions(vae, bank, folder / "figures" / "reconstructions.png")
    figures.traversal(vae, bank, folder / "figures" / "traversal.png")
    figures.curves(folder, folder / "figures" / "curves.png")
    print(f"pretrained; the run is in {folder}, its encoder in {folder / 'encoder'}")


def _train(config: Any) -> None:
    from episodes import make_batch
    from metagvae import figures
    from metagvae.training import train

    train(config)
    dataset = config.data.make()
    bank = dataset.load("train")
    folder = Path(config.run.folder)
    sampler = config.episodes.sampler(bank, config.run.seed, "train", dataset.rotations == "episode")
    figures.episode(make_batch(bank, sampler.span(0, 1)), folder / "figures" / "episode.png")
    figures.curves(folder, folder / "figures" / "curves.png")
    print(f"trained; the run is in {folder}. Measure it: metagvae evaluate --run {folder}")


COMMANDS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "import-encoder": import_encoder,
    "export-encoder": export_encoder,
}
DATA_ACTIONS: dict[str, Callable[..., None]] = {"list": data_list, "fetch": data_fetch, "check": data_check}


def _headline(function: Callable[..., None]) -> str:
    """The first sentence of a function's docstring."""
    return (function.__doc__ or "").strip().split(".")[0]


def _described(function: Any, name: str) -> str:
    """The sentence on an argument in a function's docstring."""
    lines = (function.__doc__ or "").splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.strip().startswith(f"{name}:"))


def build_parser() -> Any:
    """The command line's parser."""
    import jsonargparse

    from metagvae.config import PretrainConfig, TrainConfig

    class ArgumentParser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Any = None) -> NoReturn:
            """One message and status 2, in place of two pages of usage."""
            print(
                f"metagvae: {message}\nAllowed settings: {self.prog.replace(' [options]', '')} --help", file=sys.stderr
            )
            raise SystemExit(2)

    parser = ArgumentParser(prog="metagvae", description="Few-shot meta-learning with guided variational autoencoders.")
    commands = parser.add_subcommands(dest="command")

    def with_config(cls: type, text: str) -> Any:
        sub = ArgumentParser(description=text)
        sub.add_argument("--config", action="config", help="YAML file with any of the settings below.")
        sub.add_class_arguments(cls, None)
        return sub

    def of_function(function: Any) -> Any:
        sub = ArgumentParser(description=(function.__doc__ or "").strip().splitlines()[0])
        # argparse's own nargs, so that `--way 5 20` works beside jsonargparse's `--way [5,20]`
        lists = {"run": str, "encoder": str, "features": str, "way": int, "shot": int} if function is evaluate else {}
        sub.add_function_arguments(function, as_positional=True, skip=set(lists))
        for name, kind in lists.items():
            text = _described(function, name)
            sub.add_argument(f"--{name}", type=kind, nargs="+", help=text)
        return sub

    commands.add_subcommand(
        "pretrain", with_config(PretrainConfig, "Pretrain a guided VAE."), help="pretrain a guided VAE"
    )
    commands.add_subcommand(
        "train",
        with_config(TrainConfig, "Train a few-shot learner on episodes."),
        help="train a few-shot learner on episodes",
    )
    for name, function in COMMANDS.items():
        commands.add_subcommand(name, of_function(function), help=_headline(function))
    data = ArgumentParser(description="Data sets: list, fetch, check.")
    commands.add_subcommand("data", data, help="list, fetch or check data sets")
    actions = data.add_subcommands(dest="action")
    for name, function in DATA_ACTIONS.items():
        actions.add_subcommand(name, of_function(function), help=_headline(function))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns 0, 2 for unusable input, 130 for an interrupted run; prints one message."""
    from metagvae.config import PretrainConfig, TrainConfig

    try:
        parser = build_parser()
        chosen = parser.parse_args(arguments)
        command = chosen.command
        settings = chosen[command]
        if command in ("pretrain", "train"):
            ready = parser.instantiate(chosen)[command]
            cls, work = (PretrainConfig, _pretrain) if command == "pretrain" else (TrainConfig, _train)
            values = {key: value for key, value in vars(ready).items() if key != "config"}
            work(cls(**values))
        elif command == "data":
            DATA_ACTIONS[settings.action](**vars(settings[settings.action]))
        else:
            COMMANDS[command](**vars(settings))
    except InputError as error:
        print(f"metagvae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metagvae: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        from metagvae.loop import Interrupted

        if isinstance(error, Interrupted):
            print(f"metagvae: {error}", file=sys.stderr)
            return 130
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
