"""A command's line: config files first, whole sections checked, nothing included, nothing imported."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from episodes import InputError
from metagvae.cli import main
from metagvae.cli.parser import configured


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "b.yaml"
    path.write_text("optim: {lr: 0.001, steps: 7}\nrun: {seed: 0, folder: B}\nlearner: {options: {distance: cosine}}\n")
    return str(path)


@pytest.mark.parametrize("form", [lambda c: ["--config", c], lambda c: [f"--config={c}"]])
@pytest.mark.parametrize("place", range(4))
def test_options_on_the_line_win_wherever_they_stand(place: int, form, config: str) -> None:  # type: ignore[no-untyped-def]
    options = [["--run.seed", "7"], ["--optim.lr=0.5"], ["--run.folder", "A"]]
    line = [word for group in [*options[:place], form(config), *options[place:]] for word in group]
    found = configured(["train", *line])
    assert (found.run.seed, found.optim.lr, found.run.folder) == (7, 0.5, "A")
    assert found.optim.steps == 7  # what the line leaves out, the file says
    assert found.learner.options == {"distance": "cosine"}


def test_of_two_files_the_later_wins_and_a_section_on_the_line_wins_over_both(tmp_path: Path, config: str) -> None:
    other = tmp_path / "c.yaml"
    other.write_text("optim: {lr: 0.25, weight_decay: 1e-3}\n")
    line = ["--optim", "{weight_decay: 2e-3}", "--config", config, "--config", str(other)]
    found = configured(["train", *line])
    assert (found.optim.lr, found.optim.steps, found.optim.weight_decay) == (0.25, 7, 0.002)


def test_every_configured_command_puts_its_files_first(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("folder: B\ntrials: 3\n")
    assert configured(["sweep", "--folder", "A", "--config", str(path)]).folder == "A"
    path.write_text("folds: 9\n")
    assert configured(["cross-validate", "--folds", "3", "--config", str(path)]).folds == 3
    path.write_text("batch: 9\n")
    assert configured(["pretrain", "--batch", "3", "--config", str(path)]).batch == 3


HOSTILE = {
    "a file in a section's place": "optim: other.yaml",
    "a file in an inner section's place": "episodes: {within: other.yaml}",
    "a class in a section's place": "learner: marked.Thing",
    "a class_path": "optim: {class_path: marked.Thing}",
    "an inner class_path": "episodes: {within: {class_path: marked.Thing}}",
    "a further config": "config: other.yaml",
    "a file at a dotted key": "episodes.samplers.by_attribute: other.yaml",
    "no mapping": "- 1",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_config_opens_no_file_and_imports_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO in the further file's place would be waited on for ever, and a page of aliases fill the memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "marked.py").write_text("open('imported', 'w')\nclass Thing: pass\n")
    os.mkfifo(tmp_path / "other.yaml")
    (tmp_path / "stranger.yaml").write_text(f"{text}\n")
    for line in (["--config", "stranger.yaml"], ["--config=stranger.yaml"]):
        with pytest.raises(InputError, match=r"stranger\.yaml: .*(must hold settings|there is no setting)"):
            configured(["train", *line])
    assert not (tmp_path / "imported").exists()
    with pytest.raises(SystemExit):  # an abbreviation would pass the check by
        configured(["train", "--conf", "stranger.yaml"])


def test_a_section_on_the_line_is_settings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "other.yaml")
    for line in (["--optim", "other.yaml"], ["--episodes.within=other.yaml"]):
        with pytest.raises(InputError, match="must hold settings"):
            configured(["train", *line])
    with pytest.raises(InputError, match="there is no such file"):
        configured(["train", "--config", "nowhere.yaml"])


def test_aliases_are_refused_wherever_settings_are_read(tmp_path: Path) -> None:
    bomb = "{steps: &a [x, x], lr: [*a, *a]}"
    with pytest.raises(InputError, match="alias"):
        configured(["train", "--optim", bomb])
    (tmp_path / "c.yaml").write_text(f"optim: {bomb}\n")
    with pytest.raises(InputError, match="alias"):
        configured(["train", "--config", str(tmp_path / "c.yaml")])


def _shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


METAGVAE = f"{shlex.quote(sys.executable)} -m metagvae"


@pytest.mark.parametrize(("command", "status"), [("data list", 141), ("train --help", 0)])  # argparse says nothing
def test_a_reader_that_has_gone_ends_a_command_quietly(command: str, status: int) -> None:
    done = _shell(f"{METAGVAE} {command} | (exec <&-; sleep 0.1)")
    assert (done.returncode, done.stderr) == (status, "")


def test_a_full_device_is_one_sentence() -> None:
    done = _shell(f"{METAGVAE} data list > /dev/full")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no room" in done.stderr


def test_what_the_terminal_cannot_show_is_spelt_and_no_measurement_lost(tmp_path: Path) -> None:
    where = shlex.quote(str(tmp_path / "r.json"))
    line = f"{METAGVAE} evaluate --data digits --encoder pixels --way 3 --episodes 5 --json {where}"
    done = _shell(line, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "+-" in done.stdout
    lost = _shell(f"rm {where}; {line} > /dev/full")
    assert lost.returncode == 2
    assert (tmp_path / "r.json").is_file()


def test_every_character_is_spelt_by_the_terminal() -> None:
    text = "\u00b1 \u2013 \u2026 \u00d7 \u00e9 \udcff \U0001f600".encode("ascii", "metagvae.spelt")
    assert text == rb"+- - ... x \xe9 \udcff \U0001f600"


SEEDS = [
    ("evaluate --data digits --encoder pixels --way 3 --seed {}", 2**63),
    ("evaluate --data digits --encoder pixels --way 3 --seed {}", -(2**63) - 1),
    ("disentangle --pictures sprites --encoder pixels --seed {}", 2**62),
    ("sweep --seed {}", 2**63),
    ("train --run.seed {}", 2**63),
    ("evaluate --data glyphs --encoder pixels --data_options {{seed: {}}}", 2**63),
]


@pytest.mark.parametrize(("command", "seed"), SEEDS)
def test_a_seed_that_no_64_bits_hold_is_one_sentence(
    command: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(seed) for word in command.split(" ", command.count(" ") if "{{" not in command else 6)]
    assert main(words) == 2
    assert f"received {seed}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--dictionary.rate", "-2"], "dictionary needs a rate above 0"),
        (["--adversary.generator_rate", "2000"], "generator_rate in (0, 1000]; received 0.05, 0.0 and 2000.0."),
    ],
)
def test_what_a_section_that_may_be_left_out_refuses_is_one_sentence(
    option: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """jsonargparse tells such an error among all the types that the section could have had."""
    assert main(["pretrain", *option]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("metagvae: ")
    assert said in line


@pytest.mark.parametrize(
    "option", [["--episodes", "1" + "0" * 30], ["--query", "9" * 25], ["--shot", "9" * 25], ["--way", "9" * 25]]
)
def test_counts_beyond_all_measure_are_one_sentence(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", "digits", "--encoder", "pixels", "--way", "3", *option]) == 2
    assert "at most" in capsys.readouterr().err


def test_dollar_signs_in_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    from dataclasses import replace

    import torch

    from episodes.datasets import make_dataset
    from metagvae.report.figures import error_bars, tile
    from metagvae.studies.compare import compare
    from metagvae.studies.protocol import Protocol

    found = compare(make_dataset("digits"), ["pixels"], protocol=Protocol([3], episodes=5))
    named = [replace(found.results[0], method=r"run$a_{$", dataset="a$\\frac$")]
    error_bars(named, tmp_path / "e.svg")
    tile([torch.zeros(1, 1, 8, 8)], ["$x_{$"], tmp_path / "t.png", "$")
    assert (tmp_path / "e.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    "command",
    [
        "evaluate --encoder pixels --data folder --root ~nobody-here/x",
        "evaluate --run ~nobody-here/x",
        "evaluate --encoder ~nobody-here/x --data digits",
        "evaluate --encoder pixels --data digits --json ~nobody-here/x.json",
        "evaluate --encoder pixels --data digits --figure ~nobody-here/x.png",
        "train --run.folder ~nobody-here/x",
        "train --data.name folder --data.root ~nobody-here/x",
        "train --data.name digits --encoder.source ~nobody-here/x",
        "data check ~nobody-here/x",
        "predict ~nobody-here/x ~nobody-here/y",
        "export-encoder ~nobody-here/x y",
        "export-encoder warp-protonet-omniglot ~nobody-here/x",
        "import-encoder ~nobody-here/x ~nobody-here/y --out z",
        "report ~nobody-here/x",
        "calibrate ~nobody-here/x digits",
        "probe --data mnist --root ~nobody-here/x --encoder pixels",
        "disentangle --pictures sprites --encoder ~nobody-here/x",
        "sweep --base ~nobody-here/x",
    ],
)
def test_a_home_that_is_not_there_is_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    out = capsys.readouterr()
    assert "~nobody-here" in out.err
    assert not out.out  # before any measurement
    assert not (tmp_path / "~nobody-here").exists()
