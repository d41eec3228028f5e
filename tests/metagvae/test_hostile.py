"""A short run of what `tools/fuzz.py` does at length: hostile files in every place that takes a file."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import pytest

from episodes import InputError
from tests import hostile


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "samples"
    hostile.make_samples(root)
    return root


def test_good_files_are_taken(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path / "case" / "cache"))
    for entry in hostile.ENTRIES.values():
        target = entry.corrupts[0]
        good = hostile.sample(samples, target).read_bytes()
        hostile.place_case(entry, target, good, samples, tmp_path / "case")
        entry.call(tmp_path / "case")


def test_bad_files_are_refused_in_one_sentence(samples: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("METAGVAE_CACHE", str(tmp_path / "case" / "cache"))
    logging.disable()
    canary = tmp_path / "executed"
    made = hostile.write_crafted(samples, tmp_path / "crafted", canary, every=9)
    cases = made + [hostile.random_case(number, samples) for number in range(40)]
    known = set(tmp_path.rglob("*"))
    refused = longest = 0
    for number, (name, target, what) in enumerate(cases):
        entry = hostile.ENTRIES[name]
        hostile.place_case(
            entry, target, what.read_bytes() if isinstance(what, Path) else what, samples, tmp_path / "case"
        )
        start = time.process_time()
        try:
            entry.call(tmp_path / "case")
        except InputError as error:
            refused += 1
            longest = max(longest, len(str(error)))
        except Exception as error:
            raise AssertionError(f"case {number}, {name}, {target}: {type(error).__name__}") from error
        # a tenth of that on a fast processor; what keeps a parser busy takes minutes on any
        assert time.process_time() - start < 8, (number, name, target)
        shutil.rmtree(tmp_path / "case")
        assert set(tmp_path.rglob("*")) == known, (number, name, target)
    logging.disable(logging.NOTSET)
    assert refused > 0.6 * len(cases)
    assert longest < 3000
    assert not canary.exists()
