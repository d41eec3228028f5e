"""Every group runs, at sizes that take no time; and ours computes what the peer computes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from episodes import EpisodeBatch, Episodes, EpisodeSampler, EpisodeShape, InputError, make_batch, to_float
from metagvae.benchmark import (
    GROUPS,
    Context,
    Row,
    Sizes,
    benchmark,
    evaluation,
    loading,
    maml,
    memory,
    minutes,
    pretraining,
    prototypes,
    sampling,
)
from metagvae.benchmark.networks import PlainConv4, conv4_encoder
from metagvae.benchmark.peers import easyfsl, easyfsl_tasks, fused_tasks, learn2learn
from metagvae.benchmark.pictures import noise_bank
from metagvae.cli import main
from metagvae.compute.device import Device
from metagvae.learners import PrototypicalNetwork

SIZES = Sizes(
    drawn_classes=30,
    classes=30,
    many_classes=600,
    tasks=2,
    steps_of=(1,),
    width=4,
    episodes=4,
    peer_episodes=2,
    pictures=1280,
    embedded=10,
    ceiling=64,
)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """No data at hand, so the rows take noise."""
    return Context(Device(torch.device("cpu"), autocast=False), repeats=1, least=0.0, data=tmp_path, sizes=SIZES)


def needs(peer: Callable[[], Any]) -> None:
    try:
        peer()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes cost seconds each: what runs in them is called here, and they are tested once."""
    monkeypatch.setattr(maml, "_ask_process", lambda request: max(1, memory.main(request)["bytes"]))
    monkeypatch.setattr(loading, "import_seconds", lambda statement, processor=False: 1.0)
    monkeypatch.setattr(loading, "loaded_with", lambda statement: [])


@pytest.mark.parametrize("group", [name for name in GROUPS if name != "minutes"])
def test_every_group_measures(context: Context, group: str) -> None:
    report = benchmark(context, [group])
    assert report.rows
    for row in report.rows:
        assert row.group == group
        if not row.note.startswith("not measured"):
            assert row.ours is not None
            assert row.ours > 0
        if row.ratio is not None:
            assert 0 < (row.low or 0) <= row.ratio <= (row.high or 0)
    assert "load before" in report.table()


def test_an_unknown_group_is_refused_at_once(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="allowed: ceilings, sampling"):
        benchmark(context, ["sampling", "speed"])
    assert main(["benchmark", "--rows", "speed"]) == 2
    assert "'speed'" in capsys.readouterr().err


def test_the_command_writes_what_the_tables_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("sampling", "draw", "peer", "episodes/s", 3e4, 1e3, 30.0, 29.0, 31.0, wanted=15, load=(2e9, "copy"))
    monkeypatch.setitem(GROUPS, "sampling", lambda context: [row])
    monkeypatch.setitem(GROUPS, "ceilings", lambda context: [Row("ceilings", "copy", "", "GB/s", ours=8.0)])
    out = tmp_path / "new" / "speed.json"
    assert main(["benchmark", "--rows", "sampling", "ceilings", "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "30.0 (29.0–31.0)" in printed
    content = json.loads(out.read_text())
    assert content["measurements"][1]["reached"] is True
    spec = importlib.util.spec_from_file_location("tables", ROOT / "experiments" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    filled = tables.renewed("<!-- table new/speed.json#sampling -->\n<!-- end -->")
    assert "| row | baseline | ours | baseline's | ratio | target | limit | note |" in filled
    assert "| draw | peer | 30,000 episodes/s | 1,000 episodes/s | 30.0 (29.0–31.0) | ≥ 15.0, reached |" in filled
    assert "25 % of copy" in filled
    # the heads of files written before they had these names
    before = {"baseline": "peer", "baseline's": "peer's", "target": "wanted"}
    rows = content["groups"]["sampling"]
    content["groups"]["sampling"] = [{before.get(head, head): cell for head, cell in cells.items()} for cells in rows]
    out.write_text(json.dumps(content))
    assert tables.renewed("<!-- table new/speed.json#sampling -->\n<!-- end -->") == filled
    assert "cores" in filled


def test_drawn_bytes_are_the_gathers(context: Context) -> None:
    bank = noise_bank(30, 20)
    draw = sampling.drawing(bank, 2, torch.device("cpu"))
    draw()
    images = draw()
    numbers = EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 15))).span(2, 2).images
    assert images.dtype == torch.uint8
    assert torch.equal(images, bank.images[numbers.flatten()].view(2, 5, 16, 1, 28, 28))
    assert sampling.gathering(bank, 160)().nbytes == images.nbytes


def test_learn2learns_tasks_are_episodes_of_the_bank() -> None:
    needs(learn2learn)
    bank = noise_bank(12, 20)
    images, labels = fused_tasks(bank, 5, 16).sample()
    assert images.dtype == torch.uint8
    assert labels.bincount().tolist() == [16] * 5
    found = [(bank.images == image).flatten(1).all(1).nonzero().item() for image in images]
    assert len(set(found)) == 80
    assert len(set(bank.labels[found].tolist())) == 5


def test_easyfsls_tasks_are_episodes_of_the_bank() -> None:
    needs(easyfsl)
    bank = noise_bank(12, 20)
    loader = easyfsl_tasks(bank, 5, 1, 15)
    support, support_labels, query, query_labels, classes = next(loader)
    assert support.shape == (5, 1, 28, 28)
    assert query.shape == (75, 1, 28, 28)
    found = (bank.images == support[2]).flatten(1).all(1).nonzero().item()
    assert classes[int(support_labels[2])] == bank.labels[found]
    assert query_labels.bincount().tolist() == [15] * 5


def test_conv4_of_torchs_layers_is_ours() -> None:
    ours = conv4_encoder(8, "running").eval()
    images = torch.rand(4, 1, 28, 28)
    for pool_first in (False, True):
        theirs = PlainConv4(8, pool_first=pool_first).copy_from(ours).eval()
        assert torch.allclose(ours(images), theirs(images), atol=1e-6)


def test_our_prototypes_answer_as_easyfsls() -> None:
    needs(easyfsl)
    bank = noise_bank(12, 20)
    batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(5, 2, 3))).span(0, 1))
    encoder = conv4_encoder(8, "running").eval()
    ours = PrototypicalNetwork(encoder).eval()
    theirs = easyfsl().methods.PrototypicalNetworks(PlainConv4(8).copy_from(encoder)).eval()
    theirs.process_support_set(batch.support[0].flatten(0, 1), torch.arange(5).repeat_interleave(2))
    # ours are minus the squared distances, theirs minus the distances
    distances = -theirs(batch.query[0].flatten(0, 1))
    _, logits = ours(batch)
    assert torch.allclose(logits[0], -distances.square(), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_our_meta_gradient_is_learn2learns(steps: int) -> None:
    needs(learn2learn)
    bank = noise_bank(12, 20)
    batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(5, 1, 5))).span(0, 2))
    batch = EpisodeBatch(batch.images.double(), batch.shot, batch.classes, batch.indices)
    learner = maml.our_learner(4, steps).double()
    network = maml.peer_network(learner, 4).double()
    algorithm = learn2learn().algorithms.MAML(network, lr=maml.INNER_LR, first_order=False)
    theirs = maml.peer_gradients(algorithm, batch, steps)
    loss, _ = learner(batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(theirs), rel=1e-9)
    ours = [p.grad for p in learner.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    for mine, weight in zip(ours, network.parameters(), strict=True):
        assert torch.allclose(mine, weight.grad, rtol=1e-6, atol=1e-10)


def test_both_ways_pretrain_on_the_same_pictures_and_network(context: Context) -> None:
    bank = noise_bank(10, 13)
    upstream = pretraining._Upstream(bank)
    assert torch.equal(upstream[7], to_float(bank.images[7]))
    first, second = (pretraining.network(context, bank).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_prototypes_see_as_many_pictures_as_the_peers(context: Context) -> None:
    bank = noise_bank(30, 20)
    batch = make_batch(bank, EpisodeSampler(bank, Episodes(EpisodeShape(20, 5, 15))).span(0, 2))
    assert prototypes.ours(context, batch).units == prototypes.supervised(context, batch).units == 800
    needs(easyfsl)
    assert prototypes.with_easyfsl(context, batch).units == 400


def test_the_loop_over_episodes_measures_an_error(context: Context) -> None:
    needs(learn2learn)
    errors = evaluation.episode_by_episode(context, noise_bank(30, 20)).work()
    assert isinstance(errors, list)
    assert all(0 <= error <= 1 for error in errors)


def test_a_process_that_fails_is_quoted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="memory failed"):
        maml._ask_process({})
    row = minutes.rows(context, ROOT / "configs" / "omniglot" / "protonet.yaml")[0]
    assert row.note.startswith("not measured")
    assert minutes.rows(context, Path("none.yaml"))[0].note.startswith("not measured: none.yaml is not here")


def test_minutes_trains_and_measures(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "validation", "test"):
        for number in range(5):
            folder = tmp_path / "pictures" / split / f"{split}{number}"
            folder.mkdir(parents=True)
            for picture in range(16):
                pixels = torch.randint(256, (16, 16), generator=generator, dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / f"{picture}.png")
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"""data: {{name: folder, root: {tmp_path / "pictures"}, size: 16}}
encoder: {{width: 4, features: [backbone]}}
episodes: {{way: 5, shot: 1, query: 2}}
validation: {{every: 0}}
optim: {{steps: 2}}
"""
    )

    def train(config: Path, folder: Path, context: Context, changes: tuple[str, ...] = ()) -> float:
        assert main(["train", "--config", str(config), "--run.folder", str(folder), "--run.device", "cpu"]) == 0
        return 12.0

    monkeypatch.setattr(minutes, "train", train)
    monkeypatch.setattr(minutes, "EPISODES", 4)
    (row,) = minutes.rows(context, config)
    assert row.ours == 12.0
    assert "4 test episodes; 2 steps" in row.note
    assert row.reached is None  # quick, and nowhere near the error asked for
