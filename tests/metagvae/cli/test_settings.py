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
    assert main(["evaluate", "--data", "digits", "--encoder", "pixels", *option]) == 2
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optim: {steps: 600}\noptim: {lr: 0.5}\n", "the key 'optim' is there twice, in lines 1 and 2"),
        ("batch: 128\nviews: 1\nbatch: 7\n", "the key 'batch' is there twice, in lines 1 and 3"),
        ("optim: {steps: 600, steps: 3}\n", "the key 'steps' is there twice, in lines 1 and 1"),
        ('{"optim": {"steps": 600,\n "steps": 3}}', "the key 'steps' is there twice, in lines 1 and 2"),
        ("optim.steps: 5\noptim: {lr: 0.5}\n", "'optim.steps' stands beside its section 'optim'"),
        ("optim: {lr: 0.5}\noptim.steps: 5\n", "'optim.steps' stands beside its section 'optim'"),
        ("augment: {capture.fit: 0.5, capture: {fit: 0.7}}\n", "'capture.fit' stands beside its section 'capture'"),
        ("augment.capture.fit: 0.5\naugment.capture: {fit: 0.7}\n", "stands beside its section 'augment.capture'"),
    ],
)
def test_a_setting_that_a_file_gives_twice_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml") as caught:
        configured(["pretrain", "--config", str(path)])
    assert said in str(caught.value)


def _status(line: list[str]) -> int:
    """A command's status, whether the parser or the check after it ends it."""
    try:
        return main(line)
    except SystemExit as error:
        return int(str(error.code))


def _names(setting: str, error: str) -> bool:
    """Whether a message names the setting: the check's own, or the parser's of text that is no number, such as nan."""
    parsed = setting.split("[")[0]
    return f"the setting '{setting}' must be a finite number" in error or f'"{parsed}"' in error


def test_dotted_keys_of_a_file_are_settings(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("optim.steps: 5\noptim.lr: 0.5\nrun: {seed: 3}\n")
    found = configured(["pretrain", "--config", str(path)])
    assert (found.optim.steps, found.optim.lr, found.run.seed) == (5, 0.5, 3)


@pytest.mark.parametrize(
    ("command", "text", "name"),
    [
        ("pretrain", "encoder:\n", "encoder"),
        ("pretrain", "data: null\n", "data"),
        ("pretrain", "data: {options: null}\n", "options"),
        ("pretrain", "optim: {lr: null}\n", "lr"),
        ("pretrain", "optim.lr: null\n", "lr"),
        ("pretrain", "run: {folder: null}\n", "folder"),
        ("train", "learner:\n", "learner"),
        ("cross-validate", "folds: null\n", "folds"),
        ("sweep", "base: null\n", "base"),
    ],
)
def test_a_setting_without_a_value_is_one_sentence(
    command: str, text: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert main([command, "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert f"the setting '{name}' has no value" in error


@pytest.mark.parametrize("option", ["--optim.lr null", "--optim.lr=null", "--batch null", "--optim null"])
def test_a_null_on_the_line_is_one_sentence(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["pretrain", *option.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("metagvae: ")
    assert option.split("=")[0].split()[0].lstrip("-") in error


def test_settings_that_may_be_null_take_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {root: null}\ndictionary: null\naugment: {capture: null}\nrun: {stop_after: null}\n")
    for line in (["--config", str(path)], ["--dictionary", "null", "--run.stop_after", "null"]):
        found = configured(["pretrain", *line])
        assert (found.dictionary, found.augment.capture, found.run.stop_after) == (None, None, None)


@pytest.mark.parametrize(
    ("command", "text", "name"),
    [
        ("pretrain", "vae: {beta: .nan}\n", "vae.beta"),
        ("pretrain", "vae: {beta: nan}\n", "vae.beta"),
        ("pretrain", "optim: {lr: 0.1, clip: .inf}\n", "optim.clip"),
        ("pretrain", "vae: {guidance: [{name: deformable_pca, weight: .nan}]}\n", "vae.guidance[0].weight"),
        ("pretrain", '{"optim": {"betas": [NaN, 0.9]}}', "optim.betas[0]"),
        ("pretrain", "adversary: {codes: .nan}\n", "adversary.codes"),
        ("train", "learner: {options: {scale: -.inf}}\n", "learner.options.scale"),
        ("cross-validate", "vae_weight: .nan\n", "vae_weight"),
        ("sweep", "minutes: .nan\n", "minutes"),
        ("sweep", "fixed: {vae.beta: .nan}\n", "fixed.vae.beta"),
    ],
)
def test_a_number_that_is_none_is_refused_by_its_name(
    command: str, text: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert _status([command, "--config", str(path)]) == 2
    assert _names(name, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("pretrain --vae.beta nan", "vae.beta"),
        ("pretrain --optim.clip=inf", "optim.clip"),
        ("probe --data digits --encoder pixels --data_options {a:\u00a0.nan}", "data_options.a"),
        ("sampling --run nowhere --temperature nan", "temperature"),
    ],
)
def test_a_number_that_is_none_is_refused_on_the_line(line: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status([word.replace("\u00a0", " ") for word in line.split(" ")]) == 2
    assert _names(name, capsys.readouterr().err)


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "", "new"],
        ["predict", "examples", ""],
        ["predict", "examples", "new", "--out", ""],
        ["data", "check", ""],
        ["data", "check", "folder", "--root", ""],
        ["data", "fetch", "omniglot", "--folder", ""],
        ["pretrain", "--run.folder", ""],
        ["train", "--data.name", "digits", "--encoder.source", ""],
        ["evaluate", "--data", "digits", "--encoder", ""],
        ["evaluate", "--data", "digits", "--encoder", "pixels", "--json", ""],
        ["evaluate", "--data", "digits", "--encoder", "pixels", "--figure", ""],
        ["evaluate", "--run", ""],
        ["report", ""],
        ["export-encoder", "", "y"],
        ["import-encoder", "", "c.yaml", "--out", "z"],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("run: {seed: 3}\n")
    assert main(command) == 2
    assert "a path is empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
