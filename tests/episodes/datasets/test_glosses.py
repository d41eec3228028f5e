"""WordNet's glosses, on small files of its format; on the installed ones where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from episodes import InputError
from episodes.datasets import make_dataset
from episodes.datasets.glosses import FIELDS, FILES, INSTALLED
from episodes.tokens import TokenBank
from episodes.untrusted import wordnet_files

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n  2 Princeton University  \n"


def synset(offset: int, field: int, gloss: str) -> str:
    return f"{offset:08d} {field:02d} n 01 word 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 | {gloss}  \n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Thirty glosses of every field, spread over the four files by the kind of word."""
    lines: dict[str, list[str]] = {file: [LICENCE] for file in FILES}
    for field, name in enumerate(FIELDS):
        file = f"data.{name.split('.')[0]}"
        for number in range(30):
            text = f'{field:02d} {number:02d}  thing of {name}; "an example"; more'
            lines[file].append(synset(100 * field + number, field, text))
    lines["data.noun"].append(synset(9999, 5, "short"))
    lines["data.noun"].append(synset(10000, 5, "05 07 thing of another; said again"))
    for file, text in lines.items():
        (tmp_path / file).write_text("".join(text))
    return tmp_path


def test_a_class_is_a_field_and_a_split_has_fields_of_its_own(root: Path) -> None:
    banks = {
        split: make_dataset("glosses", root=str(root), size=14).load(split) for split in ("train", "validation", "test")
    }
    names = [set(bank.class_names) for bank in banks.values()]
    assert [len(found) for found in names] == [20, 10, 15]
    assert len(set.union(*names)) == len(FIELDS) == 45
    assert {name.split(".")[0] for name in names[2]} >= {"noun", "verb"}
    test = banks["test"]
    assert isinstance(test, TokenBank)
    animal = test.class_names.index("noun.animal")
    rows = test.images[int(test.offsets[animal]) : int(test.offsets[animal + 1])]
    assert [test.text(row) for row in rows[:2]] == ["05 00 thing of", "05 01 thing of"]
    # definitions end at the semicolon, short ones are left out, and a text that two fields share stands once
    assert len(rows) == 30
    assert set(test.counts.tolist()) == {30}


def test_what_is_no_wordnet_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_dataset("glosses", root=str(root), size=14)
    with pytest.raises(InputError, match=r"no class of the train split of glosses has 20 definitions of 90 characters"):
        make_dataset("glosses", root=str(root), size=90).load("train")
    noun = root / "data.noun"
    good = noun.read_text()
    for bad, says in (
        ("00000001 05 n 01 word without a gloss\n", "is no synset"),
        ("offset 05 n 01 word 0 | gloss\n", "is no synset"),
        (synset(1, 45, "a gloss"), "names the lexicographer's file 45; there are 45"),
        ("00000001 9999999999 n 01 word 0 | gloss\n", "names the lexicographer's file 9999999999"),
    ):
        noun.write_text(good + bad)
        with pytest.raises(InputError, match=says):
            made.load("train")
    noun.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"data\.noun cannot be read"):
        made.load("train")
    noun.write_text(good)
    monkeypatch.setattr(wordnet_files, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="has at most 100"):
        made.load("train")
    noun.unlink()
    with pytest.raises(InputError, match=r"data\.noun cannot be read"):
        made.load("train")
    with pytest.raises(InputError, match="install Debian's package wordnet-base"):
        made.fetch(root)


def test_where_they_are_missing_the_advice_can_be_followed(tmp_path: Path) -> None:
    """Of every data set: `data fetch` is advised where it fetches something."""
    for name, advised, other in (
        ("glosses", "install Debian's package wordnet-base", "data fetch"),
        ("mnist", "or run `metagvae data fetch mnist`", "wordnet"),
    ):
        with pytest.raises(InputError, match=advised) as raised:
            make_dataset(name, root=str(tmp_path)).load("test")
        assert other not in str(raised.value)


def test_the_installed_glosses() -> None:
    if not (INSTALLED / FILES[0]).exists():
        pytest.skip("wordnet-base is not installed")
    bank = make_dataset("glosses", root=str(INSTALLED)).load("test")
    assert bank.num_classes >= 12
    assert len(bank) > 5_000
