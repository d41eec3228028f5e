"""JSON as it is written: the content it was made of, a line for each record."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metagvae.storage.atomic_files import json_text

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
CONTENT = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(CONTENT)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_it_reads_back_as_it_was(content: Any) -> None:
    assert json.loads(json_text(content)) == content


def test_a_number_that_is_not_finite_is_null() -> None:
    text = json_text({"error": math.nan, "rows": [{"kl": math.inf}, [-math.inf, 1.5]]})
    strict = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert strict == {"error": None, "rows": [{"kl": None}, [None, 1.5]]}


def test_a_record_of_a_list_is_a_line() -> None:
    rows = [{"way": way, "errors": [0.1, 0.2], "over": {"low": None}} for way in (5, 20)]
    text = json_text({"about": {"seed": 0, 1: (2, 3)}, "rows": rows, "none": [], "empty": {}})
    assert text.splitlines() == [
        "{",
        ' "about": {',
        '  "seed": 0,',
        '  "1": [2, 3]',
        " },",
        ' "rows": [',
        '  {"way": 5, "errors": [0.1, 0.2], "over": {"low": null}},',
        '  {"way": 20, "errors": [0.1, 0.2], "over": {"low": null}}',
        " ],",
        ' "none": [],',
        ' "empty": {}',
        "}",
    ]
