"""The states on disk: two of them, whole, checked when read."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from episodes import InputError
from episodes.whole_files import replacing, write_beside
from metagvae.runs.states import States
from metagvae.storage.atomic_files import PatientWriter


def state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"module": {"weight": torch.randn(40, 50, generator=generator)}, "best": {"best_error": 0.5, "best": {}}}


def store(folder: Path, *steps: int) -> States:
    states = States(folder)
    for step in steps:
        states.save(step, state(step))
    return states


def loaded_step(states: States) -> int:
    loaded = states.load()
    assert loaded is not None
    assert torch.equal(loaded["module"]["weight"], state(loaded["step"])["module"]["weight"])
    return loaded["step"]


def test_the_newest_two_are_kept_in_the_order_of_steps_not_of_names(tmp_path: Path) -> None:
    states = store(tmp_path, 5, 10, 20_000_000, 9_999_999)
    assert states.steps() == [20_000_000, 9_999_999]
    assert len(list(tmp_path.iterdir())) == 2
    assert loaded_step(states) == 20_000_000


def test_none_is_none(tmp_path: Path) -> None:
    assert States(tmp_path / "nowhere").load() is None


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "zeros", "other", "renamed", "folder"])
def test_a_damaged_newest_state_gives_way_to_the_older_one(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = store(tmp_path, 5, 10)
    path = states.path(10)
    data = bytearray(path.read_bytes())
    if damage == "bit":  # in the numbers, where torch would not see it
        place = data.find(state(10)["module"]["weight"].numpy().tobytes()[:64])
        data[place + 1000] ^= 4
    elif damage == "zeros":
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    contents = {"empty": b"", "cut": bytes(data[:-700]), "bit": bytes(data), "zeros": bytes(data)}
    if damage == "other":
        torch.save([1, 2], path)
    elif damage == "renamed":
        path.write_bytes(states.path(5).read_bytes())
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(contents[damage])
    assert loaded_step(states) == 5
    said = capsys.readouterr().err
    assert f"{path} cannot be read" in said
    assert "going on from the older state of step 5" in said
    assert states.steps() == [5]
    assert (tmp_path / "step-0000010.pt.damaged").exists()
    states.save(10, state(10))
    assert loaded_step(states) == 10


def test_two_damaged_states_are_named(tmp_path: Path) -> None:
    states = store(tmp_path, 5, 10)
    for step in (5, 10):
        states.path(step).write_bytes(b"x")
    with pytest.raises(InputError, match=r"step-0000010.pt cannot be read.*step-0000005.pt cannot be read.*new folder"):
        states.load()
    assert states.steps() == [10, 5]


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    """Each is either seen or changes nothing: it lies where a zip file keeps padding and dates."""
    states = store(tmp_path, 5)
    whole = states.path(5).read_bytes()
    rng = random.Random(0)
    seen = 0
    for _ in range(400):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        states.path(5).write_bytes(bytes(data))
        try:
            assert loaded_step(states) == 5
        except InputError:
            seen += 1
    assert seen > 300


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    states = store(tmp_path, 5)
    torch.save({"step": 10, "x": Evil()}, states.path(10))
    assert loaded_step(states) == 5
    assert not (tmp_path / "ran").exists()


def test_a_state_is_streamed(tmp_path: Path) -> None:
    """The file gets the tensors in pieces; no buffer holds the whole state."""
    pieces: list[int] = []

    class Counting(io.BytesIO):
        def write(self, data: Any) -> int:
            pieces.append(memoryview(data).nbytes)
            return super().write(data)

    torch.save({"a": torch.zeros(10_000), "b": torch.zeros(10_000)}, PatientWriter(Counting()))  # type: ignore[arg-type]
    assert max(pieces) == 40_000


def test_a_failed_write_is_raised_once_torch_is_done_and_leaves_nothing(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    writer = PatientWriter(Full())
    torch.save({"a": torch.zeros(1000)}, writer)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"no room.*intact"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_written_file_has_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_beside(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
