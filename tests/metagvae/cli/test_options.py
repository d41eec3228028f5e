"""Options grouped in dataclasses: a person sees them one by one, a command takes them together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from metagvae.cli.arguments import call, of_function, option_groups
from metagvae.cli.commands import COMMANDS, GROUPS
from metagvae.evaluation.evaluator import Evaluator
from metagvae.studies.compare import compare
from tests.support.commands import call as run

OPTIONS = {
    "evaluate": "data root size rotations data_options run encoder features learner head head_options way shot query "
    "episodes seed split fit_data within same_hands warps mirror counterfactual unit votes device json figure",
    "disentangle": "encoder features pictures data root rotations way shot episodes split count seed device json "
    "figure",
    "generate": "run draw count start units keep attribute split temperature seed out data root device",
    "likelihood": "runs data root size rotations data_options images samples chains steps annealed temperatures split "
    "binarise seed device json",
    "select": "runs data root size rotations data_options by split groups images seed device link json figure",
    "refine": "run data root size rotations data_options way shot query episodes seed split within same_hands unit "
    "steps options features images device json figure out",
    "identify mixtures": "sources segments layers base means seed samples width mixtures restarts steps json figure",
}
MOST = 12  # parameters of a command; options beyond them are fields of a group
EVERY = {**COMMANDS, **{f"{name} {action}": f for name, (_, of) in GROUPS.items() for action, f in of.items()}}


@dataclass(frozen=True)
class Two:
    """Two options.

    Args:
        many: numbers.
        shares: numbers that need not be whole.
        one: a number.
    """

    many: list[int] | None = None
    shares: list[float] | None = None
    one: int = 1


def command(group: Two, other: str = "x") -> None:
    """A command.

    Args:
        other: a word.
    """
    found.append((group, other))


found: list[tuple[Two, str]] = []


def test_fields_of_a_group_are_options_of_the_command() -> None:
    found.clear()
    call(command, of_function(command).parse_args(["--many", "3", "4", "--shares", "0.2", "1", "--other", "y"]))
    assert found == [(Two([3, 4], [0.2, 1.0], 1), "y")]


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_scripts_rely_on_are_there_under_their_names(name: str) -> None:
    known = {action.dest for action in of_function(EVERY[name])._actions} - {"help"}
    assert known == set(OPTIONS[name].split())


@pytest.mark.parametrize("name", EVERY)
def test_every_command_takes_its_options_in_groups(name: str) -> None:
    assert len(inspect.signature(EVERY[name]).parameters) <= MOST
    explained = [EVERY[name].__doc__ or "", *(kind.__doc__ or "" for kind in option_groups(EVERY[name]).values())]
    for action in of_function(EVERY[name])._actions:
        assert any(f" {action.dest}: " in text for text in explained) or action.dest == "help", action.dest


@pytest.mark.parametrize(("function", "most"), [(compare, 8), (Evaluator, 5)])
def test_loose_numbers_travel_together(function: Callable[..., object], most: int) -> None:
    assert len(inspect.signature(function).parameters) <= most


def test_an_option_of_a_group_that_cannot_be_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "evaluate", "--data", "digits", "--encoder", "pixels", "--same_hands", "true")
    assert status == 2
    assert err == "metagvae: --same_hands goes with --within ATTRIBUTE, such as --within alphabet.\n"
