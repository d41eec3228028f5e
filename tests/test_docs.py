"""Truth of README and docs: commands parse, snippets run, tables are the JSON files'."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from metagvae.cli import build_parser
from tests.support.fresh import python

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    return [b for page in PAGES for b in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)]


LINES = [line for b in blocks("bash") for line in b.replace("\\\n", " ").splitlines()]
COMMANDS = [line for line in LINES if re.match(r"(\w+=\w+ )?(metagvae|torchrun|sbatch) ", line)]


def arguments(command: str) -> list[str]:
    """Arguments that the program itself receives of a line, by the parser of what starts it."""
    words = shlex.split(command, comments=True)
    if "sbatch" in words:
        return words[words.index("configs/cluster/train.sbatch") + 1 :]
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        chosen = get_args_parser().parse_args(words[1:])
        assert (chosen.training_script, chosen.module) == ("metagvae", True)
        return list(chosen.training_script_args)
    return words[1:]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = arguments(command)
    build_parser(words[0]).parse_args(words)


def test_there_are_commands_of_every_kind() -> None:
    assert sum(command.startswith("metagvae") for command in COMMANDS) > 8
    assert sum(command.startswith("torchrun") for command in COMMANDS) >= 4
    assert sum("sbatch" in command for command in COMMANDS) >= 2


def test_the_cluster_job_starts_as_its_page_says() -> None:
    """torchrun's own parser on the line of the job's script, with a command whose options torchrun would take."""
    text = (ROOT / "configs" / "cluster" / "train.sbatch").read_text().replace("\\\n", " ")
    line = re.search(r"srun .*torchrun (.*)", text)
    assert line is not None
    own = re.sub(r'"\$@"', "evaluate --run a --way 5", line[1])
    own = own.replace('"${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}"', "2")
    assert arguments(f"torchrun {own}") == ["evaluate", "--run", "a", "--way", "5"]


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_snippets_run(snippet: str, tmp_path: Path) -> None:
    done = python("-c", snippet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_files_named_in_pages_exist() -> None:
    for page in PAGES:
        # a recorded command stays as it was run, whatever was moved since
        text = "\n".join(line for line in page.read_text().splitlines() if "` at commit " not in line)
        named = r"(?:configs|scripts|docs|examples|experiments|tools)/[\w./-]+\.(?:yaml|sh|py|png|json|md)"
        for name in re.findall(named, text):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_tables_are_those_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "tables.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


OVERVIEW = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "results.md").read_text().splitlines()
    if line.startswith("| ") and "](results/" in line
]


def test_the_overview_links_every_page_of_results() -> None:
    linked = {re.search(r"\]\(results/([\w-]+\.md)", row[0])[1] for row in OVERVIEW}  # type: ignore[index]
    assert linked == {page.name for page in (ROOT / "docs" / "results").glob("*.md")}


@pytest.mark.parametrize("row", OVERVIEW, ids=lambda row: row[0][:40])
def test_the_overview_gives_figures_of_its_pages_tables(row: list[str]) -> None:
    """Each bold figure, rounded as it stands there, is in a table that was written from a JSON file."""
    page = ROOT / "docs" / re.findall(r"\]\((results/[\w-]+\.md)", row[0])[0]
    tables = "".join(re.findall(r"<!-- table .*?<!-- end -->", page.read_text(), re.DOTALL))
    measured = [float(number) for number in re.findall(r"\d+\.\d+", tables)]
    for figure in re.findall(r"\d+\.\d+", " ".join(re.findall(r"\*\*(.*?)\*\*", row[1]))):
        assert float(figure) in {round(number, len(figure.split(".")[1])) for number in measured}, figure


def test_the_repository_is_light_and_names_no_machine() -> None:
    """No file over 2 MB, no path of one machine."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        path = ROOT / name
        if not path.is_file():
            continue
        assert path.stat().st_size < 2 * 2**20, name
        if path.suffix in (".py", ".md", ".yaml", ".sh", ".toml", ".json"):
            assert not re.search(r"(^|[\s\"'=])/(work|root|home/\w+)/", path.read_text()), name
