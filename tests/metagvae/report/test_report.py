"""The report: one file that needs no other, true numbers, nothing of a stranger's taken for markup."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from episodes import EpisodeIndices, Episodes, EpisodeShape, InputError
from episodes.augment import affine_matrix
from metagvae.cli import build_parser, main
from metagvae.encoders.controls import Pixels
from metagvae.evaluation.evaluator import Evaluator
from metagvae.learners import make_learner
from metagvae.report import episodes, matrix, write_report
from metagvae.report.confusions import between_turns, confused_pairs
from metagvae.report.deformable import in_words, motion
from metagvae.report.images import strip
from metagvae.report.material import Answers
from metagvae.report.section import readable
from metagvae.report.shape import choose_shape
from tests.support.banks import stripes
from tests.support.report_images import HOSTILE, draw_classes

SMALL = ["--data.name", "folder", "--data.size", "28", "--encoder.width", "8", "--encoder.latent", "9"]
GUIDED = '[{"name": "deformable_pca", "transforms": ["rotation", "translation"]}]'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short runs: a plain VAE, a guided one, and a prototypical network on it."""
    root = tmp_path_factory.mktemp("report")
    draw_classes(root / "pictures", {"train": 6, "validation": 3, "test": 5})
    data = [*SMALL, "--data.root", str(root / "pictures")]
    steps = ["--optim.steps", "20", "--optim.lr", "0.01", "--run.log_every", "1"]
    # so that units are in use after so few steps
    eager = ["--batch", "16", "--vae.beta", "0.001", "--vae.likelihood", "gaussian", "--vae.sigma", "0.03"]
    for name, guidance in (("plain", "[]"), ("guided", GUIDED)):
        folder = ["--run.folder", str(root / name)]
        assert (
            main(["pretrain", *data, "--vae.guidance", guidance, *eager, "--encoder.norm", "group", *steps, *folder])
            == 0
        )
    shape = ["--episodes.way", "5", "--episodes.query", "3", "--validation.way", "3", "--validation.query", "3"]
    source = ["--encoder.source", str(root / "guided"), "--encoder.features", '["backbone"]']
    chosen = ["--validation.episodes", "4", "--validation.every", "2"]
    folder = ["--run.folder", str(root / "network")]
    assert main(["train", *data[:4], *data[-2:], *source, *shape, *chosen, *steps, *folder]) == 0
    return root


class Reader(HTMLParser):
    """Parts of a page that a browser would find: tags, their attributes, and text outside them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "col", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module", autouse=True)
def _few_factor_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("DRAWN", 300), ("FITTED", 100), ("SCORED", 100)):
            patch.setattr(matrix, name, count)
        yield


@pytest.fixture(scope="module")
def pages(runs: Path) -> dict[str, str]:
    """The text of each report, written once."""
    written = {name: [name] for name in ("guided", "plain", "network")} | {"compared": ["network", "guided", "plain"]}
    found = {}
    for name, members in written.items():
        out = runs / f"{name}.html"
        arguments = [str(runs / member) for member in members]
        assert main(["report", *arguments, "--out", str(out), "--episodes", "12", "--device", "cpu"]) == 0
        found[name] = out.read_text(encoding="utf-8")
    return found


def test_one_file_without_script_or_outside_link(pages: dict[str, str]) -> None:
    for page in pages.values():
        assert 20_000 < len(page.encode()) < 5_000_000
        reader = Reader(page)
        assert not reader.open, "every tag is closed"
        assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in reader.tags}
        for tag, attributes in reader.tags:
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            for name in ("src", "href", "xlink:href", "data", "action"):
                if name in attributes:
                    assert re.match(r"data:image/(png|jpeg|svg\+xml);base64,|#", attributes[name] or ""), attributes[
                        name
                    ]
        assert not re.search(r"url\(|@import", page)
        anchors = {attributes["href"] for tag, attributes in reader.tags if tag == "a"}
        assert {f"#{attributes['id']}" for tag, attributes in reader.tags if tag == "section"} == anchors


def test_images_are_images_and_say_what_they_show(pages: dict[str, str]) -> None:
    images = [attributes for tag, attributes in Reader(pages["guided"]).tags if tag == "img"]
    assert len(images) > 60
    assert all((image["alt"] or "").endswith(".") for image in images)
    drawings = [source for image in images if (source := image["src"] or "").startswith("data:image/svg")]
    assert drawings
    for source in drawings:
        svg = base64.b64decode(source.partition(",")[2]).decode()
        assert "<script" not in svg
        assert not re.search(r"href=\"(?!#|data:image/png;base64,)", svg)


def test_hostile_class_names_are_text(pages: dict[str, str]) -> None:
    reader = Reader(pages["guided"])
    assert f"{HOSTILE}0" in reader.words
    assert HOSTILE not in pages["guided"]
    assert "x" not in [attributes.get("src") for _, attributes in reader.tags]


def test_a_pretrained_run_has_every_section(pages: dict[str, str]) -> None:
    words = Reader(pages["guided"]).words
    left_out = re.findall(r"Left out\. [^.]*\.", words)
    assert left_out == ["Left out. The prior of this run knows no causes, so no image can be drawn under others."]
    for sentence in ("raw pixels", "untrained network", "geometry: rotation", "geometry: down", "FactorVAE", "turned"):
        assert sentence in words, sentence
    assert words.count("· unit") == 9, "a strip for each latent unit"
    assert len(re.findall(r"Episode \d: \d+ of \d+ wrong", words)) == 10


def test_what_a_run_has_not_is_left_out_with_a_reason(pages: dict[str, str]) -> None:
    plain, network = Reader(pages["plain"]).words, Reader(pages["network"]).words
    assert plain.count("Left out.") == 2
    assert "knows no causes" in plain
    assert "deformable_pca was not among" in plain
    assert network.count('mode "finetune", which keeps no decoder') == 5
    assert "numbers without names" in network
    assert "validation error" in pages["network"]


def test_numbers_are_those_of_evaluate(runs: Path, pages: dict[str, str]) -> None:
    out = runs / "evaluated.json"
    arguments = ["--way", "5", "--shot", "1", "--query", "5", "--episodes", "12", "--device", "cpu", "--json", str(out)]
    words = Reader(pages["network"]).words
    shape = re.search(r"12 episodes of (\d+) queries per class", words)
    assert shape
    arguments[5] = shape[1]
    assert main(["evaluate", "--run", str(runs / "network"), "--encoder", "pixels", *arguments]) == 0
    for result in json.loads(out.read_text())["results"]:
        over = result["over_classes"]
        classes = f"[{100 * over['low']:.2f}, {100 * over['high']:.2f}]"  # five classes are few: theirs comes first
        assert f"{100 * result['error']:.2f} {classes} ± {100 * result['half_width']:.2f}" in words


def test_several_runs_are_compared_on_the_same_episodes(runs: Path, pages: dict[str, str]) -> None:
    reader = Reader(pages["compared"])
    words = reader.words
    assert "paired difference from network on the same episodes" in words
    for sentence in (
        "Settings that differ",
        "vae.guidance",
        "Where they disagree",
        "Command of plain",
        "Choosing without labels",
    ):
        assert sentence in words, sentence
    rows = re.findall(r'<th scope="row">(\w[\w ]*)</th>\s*<td class="number">', pages["compared"])
    assert rows[:3] == ["network", "guided", "plain"], "runs first, controls after them"
    assert re.search(r'<th scope="row">guided</th><td>\d+</td>', pages["compared"]), "what select says of it"
    assert len(re.findall(r'class="difference">[+−]', pages["compared"])) >= 5, "all but the first have one"
    assert "network: This run trained a classifier" in words


def test_the_config_shown_trains_again(pages: dict[str, str]) -> None:
    found = re.search(r"<pre>(data:.*?)</pre>", pages["guided"], re.DOTALL)
    assert found
    settings = yaml.safe_load(unescape(found[1]))
    path = Path(settings["data"]["root"]).parent / "again.yaml"
    path.write_text(yaml.safe_dump(settings))
    chosen = build_parser("pretrain").parse_args(["pretrain", "--config", str(path)])
    assert chosen.pretrain.encoder.latent == 9


def test_trained_classes_are_not_measured(runs: Path) -> None:
    """Of pictures whose classes the run saw, there are no episodes, and the page says why."""
    path = runs / "guided" / "encoder" / "config.json"
    kept = path.read_text()
    content = json.loads(kept)
    family = next(iter(content["card"]["trained_classes"]))
    content["card"]["trained_classes"][family].append(f"{HOSTILE}0")
    try:
        path.write_text(json.dumps(content))
        out = write_report([str(runs / "guided")], runs / "refused.html", episodes=4)
    finally:
        path.write_text(kept)
    words = Reader(out.read_text()).words
    assert words.count("would mean nothing") == 3
    assert "Over 40 images" in words, "reconstructions stay"


def test_refusals(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 to 8 runs, each named once"):
        write_report([str(runs / "plain")] * 2, tmp_path / "x.html")
    with pytest.raises(InputError, match="no run folder"):
        write_report([str(tmp_path)], tmp_path / "x.html")
    with pytest.raises(InputError, match="need 50 classes"):
        write_report([str(runs / "plain")], tmp_path / "x.html", way=50)
    assert not (tmp_path / "x.html").exists()


def test_runs_of_one_folder_name_keep_their_paths(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else one's curve would stand for both."""
    other = shutil.copytree(runs / "plain", tmp_path / "plain")
    page = write_report([str(runs / "plain"), str(other)], tmp_path / "two.html", episodes=4).read_text()
    for folder in (runs / "plain", other):
        assert str(folder) in unescape(page)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comparison.html").mkdir()
    assert main(["report", str(runs / "plain"), str(other)]) == 2  # before anything is measured
    assert "cannot write comparison.html: it is a folder" in capsys.readouterr().err


def test_the_shape_is_what_the_data_can_give() -> None:
    plenty = choose_shape(torch.full((30,), 20))
    assert (plenty.way, plenty.shots, plenty.query, plenty.note) == (5, (1, 5), 15, "")
    few = choose_shape(torch.tensor([6, 6, 4, 1]))
    assert (few.way, few.shots, few.query) == (3, (1,), 3)
    assert "3 classes of two images or more" in few.note
    asked = choose_shape(torch.full((30,), 20), 7, [3], 4)
    assert (asked.way, asked.shots, asked.query, asked.note) == (7, (3,), 4, "")
    assert choose_shape(torch.full((30,), 20), learners_way=8).way == 8


def test_answers_are_what_errors_count() -> None:
    evaluator = Evaluator(stripes(classes=8, noise=2.0), Episodes(EpisodeShape(5, 1, 4), stream="test"), 30)
    learner = make_learner("prototypes", Pixels(), 0)
    drawn, found = evaluator.answers(learner, 5, 1)
    (errors,) = evaluator.errors(learner, [(5, 1)])
    answers = Answers(evaluator, drawn, found.unflatten(1, (5, -1)))
    assert 0 < errors.mean() < 1
    assert np.allclose(answers.wrong.flatten(1).double().mean(1).numpy(), errors)


def test_large_episodes_show_their_first_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(stripes(classes=8, noise=2.0), Episodes(EpisodeShape(5, 1, 4), stream="test"), 3)
    drawn, found = evaluator.answers(make_learner("prototypes", Pixels(), 0), 5, 1)
    answers = Answers(evaluator, drawn, found.unflatten(1, (5, -1)))
    monkeypatch.setattr(episodes, "MOST", 3 * 5 * 3)
    shown = episodes.episodes_content(SimpleNamespace(answers=answers, bank=evaluator.bank))  # type: ignore[arg-type]
    assert (shown["shown"], shown["queries"]) == (2, 4)
    ways = [way for episode in shown["episodes"] for way in episode["ways"]]
    assert {way["queries"].width for way in ways} == {2 * 48 + 4}
    assert sum(episode["mistakes"] for episode in shown["episodes"]) == int(answers.wrong.sum())


def test_confused_pairs_are_counted_by_hand() -> None:
    """Class 4 is taken for 2 twice in one episode and once in another; 7 for 4 once."""
    classes = torch.tensor([[2, 4, 7], [4, 7, 2]])
    ways = torch.arange(3)[None, :, None].expand(2, 3, 3).clone()
    ways[0, 1, :2] = 0
    ways[1, 0, 2] = 2
    ways[1, 1, 0] = 0
    drawn = EpisodeIndices(classes, torch.zeros(2, 3, 4, dtype=torch.int64), 1)
    answers = Answers(Evaluator(stripes(), Episodes(EpisodeShape(5, 1), stream="test"), 2), drawn, ways)
    assert confused_pairs(answers, 9) == [(2, 4, 3, 12), (4, 7, 1, 12)]
    names = [f"Latin/character{number // 4 + 1:02}/rot{90 * (number % 4):03}" for number in range(9)]
    assert between_turns(confused_pairs(answers, 9), names) == 1 / 4  # 4 and 7 are turns of character02
    once = replace(answers, ways=torch.arange(3)[None, :, None].expand(2, 3, 3))
    assert confused_pairs(once, 9) == []


def test_a_warp_in_words_says_what_made_it() -> None:
    turn, wide, high = torch.tensor([0.3]), torch.tensor([0.2]), torch.tensor([-0.1])
    theta = affine_matrix(turn, wide, high, torch.tensor([0.15]), torch.tensor([[0.5, -0.25]]))[0]
    words = in_words(motion(theta), 28)
    assert words == (
        "turned 17° left, 1.22 times as wide and 0.90 times as high, sheared +0.15, moved 7.0 px right and 3.5 px up"
    )


def test_strips_mark_mistakes_and_stay_small() -> None:
    grey = strip(torch.zeros(3, 1, 28, 28), "three.", [False, True, False])
    data = base64.b64decode(grey.source.partition(",")[2])
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert sheet.shape == (56, 3 * 60 - 4, 3)
    reds = (sheet[..., 0] > 150) & (sheet[..., 1] < 100)
    assert reds[:, 60:116].any()
    assert not reds[:, :60].any()
    assert not reds[:, 116:].any()
    photo = strip(torch.rand(2, 3, 512, 512), "two.")
    assert photo.source.startswith("data:image/jpeg")
    assert (photo.width, photo.height) == (116, 56)
    assert strip(torch.full((1, 5, 16, 16), float("nan")), "none.").height == 48


def test_text_that_steers_a_screen_is_made_plain() -> None:
    assert readable("a\u202eb\x1b[2J\nc") == "a?b?[2J?c"
    assert len(readable("x" * 500)) == 80
