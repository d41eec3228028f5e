"""Options that say one thing twice, or nothing: refused, and never passed over."""

from __future__ import annotations

import pytest

from tests.support.commands import call

EVALUATE = "evaluate --data digits --encoder pixels --episodes 2"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f'{EVALUATE} --size 20 --data_options {{"size":16}}', "hold size, which has a setting of its own"),
        (f'{EVALUATE} --data_options {{"root":"x","rotations":"none"}}', "hold root, rotations, which"),
        ('data check digits --options {"root":"x"}', "hold root, which"),
        ('train --data.name digits --data.options {"size":16}', "hold size, which"),
        (f"{EVALUATE} --size 0", "must be between 8 and 512 pixels; received 0"),
        (f"{EVALUATE} --root=", "a path is empty"),
        (f"{EVALUATE} --head ridge --learner prototypes", "--head is the older name of --learner"),
    ],
)
def test_it_is_one_sentence(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, said = call(capsys, *line.split())
    assert status == 2
    assert says in said
