"""The causal prior and its controls on a drawn scene: counterfactual images, scores, and counterfactual supports.

Trains what is not under runs/ yet, as `metagvae pretrain --config configs/pendulum/GRAPH.yaml --run.seed N
--run.folder runs/pendulum-GRAPH-seedN` does, GRAPH being causal, reversed and no-graph. With --supports it measures
few-shot errors; with --hidden too, of runs whose names end in -hidden-seedN, trained with --data.options '{"hidden":
["angle"]}': nothing told them the factor that classes are made of. --weights takes the weight of that factor's block
for each graph; --split validation is for choosing them.

python experiments/causes.py --seeds 0 1 --json experiments/results/causes.json
python experiments/causes.py --supports --seeds 0 1 --episodes 100 --json experiments/results/causes-supports.json
python experiments/causes.py --hidden --split validation --seeds 100 --weights 1.5 1.5 1.5
python experiments/causes.py --scene flow --json experiments/results/causes-flow.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from episodes import Episodes, EpisodeShape, ImageBank, to_float
from episodes.datasets import make_dataset
from episodes.datasets.scenes import Scene
from episodes.untrusted.plain_files import read_json
from metagvae import zoo
from metagvae.cli.arguments import config_in
from metagvae.compute.device import Device
from metagvae.config.sections import PretrainConfig
from metagvae.encoders.controls import Pixels
from metagvae.evaluation.codes import encode_halves
from metagvae.evaluation.counterfactual import counterfactual_error
from metagvae.evaluation.disentanglement import block_scores, importance_scores, importances
from metagvae.evaluation.evaluator import Evaluator
from metagvae.evaluation.infomec import infomec
from metagvae.evaluation.irs import irs
from metagvae.learners import Learner, make_learner
from metagvae.learners.counterfactual_support import CounterfactualSupport
from metagvae.report.figures import tile
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json
from metagvae.training.pretraining import pretrain
from metagvae.vae.priors import Prior
from metagvae.zoo.trained import Trained

ROOT = Path(__file__).resolve().parent.parent
GRAPHS = {"causal": "right graph", "reversed": "every arrow reversed", "no-graph": "no arrow, labels alone"}
# what support images are drawn again under: how many numbers of each factor, in every combination
NUISANCES = {"pendulum": {"light": 8}, "flow": {"hole": 8, "height": 8}}
# settings of the prior where the first factor is told of no image: what makes labels count at once is no help to it
UNTOLD: dict[str, dict[str, Any]] = {"pendulum": {"ramp": 0.2, "label_spread": None}, "flow": {}}


def trained(arguments: argparse.Namespace, graph: str, seed: int, bank: ImageBank) -> Trained:
    """A run, trained if it is not there.

    Args:
        bank: the training images.
    """
    weight = dict(zip(GRAPHS, arguments.weights, strict=True)).get(graph) if arguments.weights else None
    tag = ("-hidden" if arguments.hidden else "") + (f"-noise{arguments.noise:g}" if arguments.noise else "")
    tag += f"-weight{weight:g}" if weight is not None else ""
    folder = arguments.folder / f"{arguments.scene}-{graph}{tag}-seed{seed}"
    if not (folder / "vae.safetensors").exists():
        text = "A run of experiments/causes.py."
        config = config_in(str(ROOT / "configs" / arguments.scene / f"{graph}.yaml"), PretrainConfig, text)
        config.data.options = options(arguments)
        config.vae.prior.update(UNTOLD[arguments.scene] if arguments.hidden else {})
        if weight is not None:
            config.vae.prior["unlabelled_weight"] = weight
        config.run.folder, config.run.seed, config.run.device, config.run.resume = str(folder), seed, "cpu", "auto"
        pretrain(config, bank)
    return zoo.open(folder)


@torch.no_grad()
def measured(run: Trained, bank: ImageBank, episodes: int) -> dict[str, float]:
    """Measurements of a run, kept in its folder and read from there the next time.

    Args:
        episodes: of the few-shot errors; 0 for the scores of a run whose factors were all told.
    """
    path = Path(run.name) / f"causes-{bank.split}-{episodes}.json"
    if path.exists():
        kept: dict[str, float] = read_json(path, "what was measured of a run")
        return kept
    found = supports(run, bank, episodes) if episodes else told(run, bank)
    write_json(path, found)
    return found


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of the data set: what is hidden, and what is added to the effects."""
    first = next(iter(make_dataset(arguments.scene).scene().parents))  # type: ignore[attr-defined]
    noisy = {"noise": arguments.noise} if arguments.noise else {}
    return {"hidden": [first], **noisy} if arguments.hidden else noisy


def told(trained: Trained, bank: ImageBank) -> dict[str, float]:
    """Counterfactual errors and scores of a run whose factors were all told."""
    vae, scene = trained.vae(), trained.data.make().scene()  # type: ignore[attr-defined]
    found = counterfactual_error(vae, scene, bank)
    train, test = encode_halves(trained.encoder(), bank, 1000, 0, Device.choose("cpu"))
    importance, _ = importances(train, test)
    information = infomec(train, test)
    units = vae.encoder.units
    blocks = block_scores(importance, list(units.values()))[0]
    own = {
        f"own block, {factor.name}": float(importance[units[factor.name], number].sum())
        for number, factor in enumerate(train.factors)
    }
    return {
        "counterfactual error": found.mean,
        **{f"do({name})": error for name, error in found.errors.items()},
        "nothing done": sum(found.untouched.values()) / len(found.untouched),
        "rebuilt": found.rebuilt,
        "DCI-D": importance_scores(importance)[0],
        "DCI-D of blocks": blocks,
        **own,
        "IRS": irs(test),
        "InfoM": information.modularity,
        "InfoE": information.explicitness,
        "InfoC": information.compactness,
    }


def errors(learner: Learner, bank: ImageBank, episodes: int) -> float:
    """5-way 1-shot error in %, on the same episodes for every learner."""
    drawn = Episodes(EpisodeShape(5, 1, 15), 0, bank.split)
    return 100 * float(Evaluator(bank, drawn, episodes, Device.choose("cpu")).errors(learner, [(5, 1)])[0].mean())


def supports(trained: Trained, bank: ImageBank, episodes: int) -> dict[str, float]:
    """5-way 1-shot errors with the support images drawn again, and with the units of the class's factor."""
    vae, scene = trained.vae(), trained.data.make().scene()  # type: ignore[attr-defined]
    own, changed = next(iter(scene.parents)), NUISANCES[bank.dataset]
    many, one = CounterfactualSupport(vae, changed), CounterfactualSupport(vae, dict.fromkeys(changed, 1))
    done = counterfactual_error(vae, scene, bank, list(changed)).errors
    return {
        drawn_under(bank.dataset): errors(many, bank, episodes),
        f"under one {' and '.join(changed)}": errors(one, bank, episodes),
        f"units of the {own}": errors(make_learner("prototypes", trained.encoder([own]), 5), bank, episodes),
        **{f"do({name})": error for name, error in done.items()},
    }


def drawn_under(scene: str) -> str:
    """The head of the column of errors with drawn supports."""
    return f"supports under {' x '.join(f'{count} {name}s' for name, count in NUISANCES[scene].items())}"


class SceneItself(nn.Module):
    """Draws counterfactual images as the scene does, of images that it knows: what drawn supports could reach at best.

    Args:
        prior: whose ranges of the factors are taken.
    """

    def __init__(self, scene: Scene, bank: ImageBank, prior: Prior) -> None:
        super().__init__()
        assert bank.factors is not None
        self.scene, self.prior = scene, prior
        images = bank.gather(torch.arange(len(bank)))
        self.known = dict(zip((image.numpy().tobytes() for image in images), bank.factors.values, strict=True))

    def counterfactual(self, images: Tensor, do: Mapping[str, Tensor]) -> Tensor:
        """Drawn images ``[B, C, H, W]``, with the factors in ``do`` set to numbers ``[B]``."""
        keys = [image.numpy().tobytes() for image in (255 * images).round().to(torch.uint8)]
        return self.scene.render(self.scene.intervene(torch.stack([self.known[key] for key in keys]), do))


def paired(name: str, right: list[dict[str, float]], control: list[dict[str, float]]) -> dict[str, str]:
    """A row of the mean differences of two graphs over the same seeds, with 95 % intervals."""
    row = {"prior": f"right graph less {name}, 95 %"}
    for key in right[0]:
        apart = np.array([a[key] - b[key] for a, b in zip(right, control, strict=True)])
        half = student.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
        row[key] = f"{apart.mean():+.1f} ± {half:.1f}"
    return row


@torch.no_grad()
def draw(opened: dict[str, Trained], bank: ImageBank, factor: str, path: Path, count: int = 10) -> None:
    """Test images whose ``factor`` is set to another image's: by the scene itself, and by each run."""
    assert bank.factors is not None
    scene = next(iter(opened.values())).data.make().scene()  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    rows, others = (torch.randint(len(bank), (count,), generator=generator) for _ in range(2))
    images, given = to_float(bank.gather(rows)), to_float(bank.gather(others))
    wished = {factor: bank.factors.columns(others)[factor]}
    drawn = {"image": images, f"another's {factor}": given}
    drawn["the scene itself"] = scene.render(scene.intervene(bank.factors.values[rows], wished))
    for name, trained in opened.items():
        drawn[name] = trained.vae().counterfactual(images, {factor: given})
    tile(list(drawn.values()), list(drawn), path, f"test images under another image's {factor}")


def cell(numbers: list[float]) -> str:
    """The mean, and the smallest and the largest of several seeds."""
    digits = 3 if 0 < max(numbers) < 1 else 1
    span = f" ({min(numbers):.{digits}f} to {max(numbers):.{digits}f})" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.{digits}f}{span}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scene", default="pendulum")
    parser.add_argument("--hidden", action="store_true", help="runs that were not told the factor of the classes")
    parser.add_argument("--supports", action="store_true", help="few-shot errors with counterfactual supports")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--graphs", nargs="+", choices=list(GRAPHS), default=list(GRAPHS))
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--split", default="test", help="of the images and episodes")
    parser.add_argument("--noise", type=float, default=0.0, help="added to each effect, in the scene's units")
    parser.add_argument("--weights", type=float, nargs=3, help="unlabelled_weight of each graph")
    parser.add_argument("--train_only", action="store_true", help="train what is missing and measure nothing")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--figure", type=Path, help="file to draw counterfactual images of the first seed to")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    few_shot = arguments.hidden or arguments.supports
    torch.set_num_threads(1)
    every: dict[str, list[dict[str, float]]] = {}
    dataset = make_dataset(arguments.scene, **options(arguments))
    training, bank = dataset.load("train"), dataset.load(arguments.split)
    for graph in arguments.graphs:
        name = GRAPHS[graph]
        for seed in arguments.seeds:
            run = trained(arguments, graph, seed, training)
            if arguments.train_only:
                continue
            one = measured(run, bank, arguments.episodes if few_shot else 0)
            every.setdefault(name, []).append(one)
            print(name, seed, {key: round(value, 3) for key, value in one.items()}, flush=True)
    if arguments.train_only:
        return
    rows: list[dict[str, Any]] = [
        {"prior": name, **{key: cell([one[key] for one in found]) for key in found[0]}} for name, found in every.items()
    ]
    if few_shot:
        pixels = errors(make_learner("prototypes", Pixels(), 5), bank, arguments.episodes)
        itself = SceneItself(dataset.scene(), bank, run.vae().prior)  # type: ignore[attr-defined]
        best = errors(CounterfactualSupport(itself, NUISANCES[arguments.scene]), bank, arguments.episodes)  # type: ignore[arg-type]
        found, own = list(every.items()), drawn_under(arguments.scene)
        if len(found) > 1 and len(arguments.seeds) > 1:
            rows += [paired(name, found[0][1], control) for name, control in found[1:]]
        for name, error in (("the scene itself", best), ("none: pixels of the one image", pixels)):
            rows.insert(0, dict.fromkeys(rows[0], "–") | {"prior": name, own: f"{error:.1f}"})
            every[name] = [{"error": error}]
    for row in rows:
        print("  ".join(row.values()))
    made = provenance()  # before the first file is written
    if arguments.figure:
        first = {
            name: trained(arguments, graph, arguments.seeds[0], training)
            for graph, name in (("causal", "right graph"), ("reversed", "reversed"), ("no-graph", "no arrow"))
        }
        draw(first, bank, next(iter(NUISANCES[arguments.scene])), arguments.figure)
    if arguments.json:
        of_what = f"5-way 1-shot error in % on the same {arguments.episodes} {arguments.split} episodes"
        about = (
            f"{len(arguments.seeds)} training seeds: the mean, and in brackets the smallest and the largest. "
            f"{of_what if few_shot else 'Errors are squared, summed over the pixels of a test image'}."
        )
        content = {"provenance": made, "about": about, "rows": rows, "per_seed": every}
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()
