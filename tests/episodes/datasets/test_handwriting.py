"""Handwriting: what it is made of, what is turned, and what an encoder trained on it may not be measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from episodes import Attribute, ImageBank, InputError
from episodes.datasets import handwriting as module
from episodes.datasets import make_dataset
from episodes.datasets.glyphs import letters_of
from episodes.datasets.side_by_side import side_by_side
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.leakage import refuse_trained_classes
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import classes_seen
from tests.support.omniglot_files import members, write


class FewGlyphs(module.Glyphs):
    """Two letters per split: drawing all of them takes a minute."""

    def load_split(self, split: str) -> ImageBank:
        script = {"train": "latin", "validation": "lao", "test": "hebrew"}[split]
        codes = letters_of(script)[:2]
        images = [torch.full((20, 1, self.side, self.side), number, dtype=torch.uint8) for number in range(2)]
        bank = ImageBank.from_classes(
            [(f"{script}/U+{code:04X}", drawings) for code, drawings in zip(codes, images, strict=True)],
            dataset=f"glyphs-seed{self.seed}",
            split=split,
            polarity="ink",
        )
        return replace(bank, attributes={"script": Attribute(torch.zeros(2, dtype=torch.int64), (script,))})


@pytest.fixture
def omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of nine alphabets of two characters, which the published split does not know."""
    monkeypatch.setattr(module, "Glyphs", FewGlyphs)
    split = {"train": "ABCDEF", "validation": "G", "test": "YZ"}
    monkeypatch.setattr(
        "episodes.datasets.omniglot.vinyals_split",
        lambda part: {(alphabet, f"character{n:02d}") for alphabet in split[part] for n in (1, 2)},
    )
    return str(write(tmp_path / "omniglot", members(), zipped=True))


def test_all_alphabets_and_all_scripts_are_there_once(omniglot: str) -> None:
    bank = make_dataset("handwriting", root=omniglot).load("train")
    assert bank.dataset == "handwriting-all"
    assert len(set(bank.class_names)) == bank.num_classes == 9 * 2 + 3 * 2
    assert {name.partition("/")[0] for name in bank.class_names} == {
        *(f"omniglot:{alphabet}" for alphabet in "ABCDEFGYZ"),
        "glyphs:latin",
        "glyphs:lao",
        "glyphs:hebrew",
    }
    assert bank.counts.tolist() == [3] * 18 + [20] * 6
    source = make_dataset("omniglot", root=omniglot).load("test")
    place = bank.class_names.index("omniglot:Z/character02")
    assert torch.equal(bank.images[bank.offsets[place] : bank.offsets[place + 1]], source.images[-3:])


def test_an_alphabet_is_a_script_whatever_split_it_came_from(omniglot: str) -> None:
    """Its interval over classes is then one over scripts."""
    root = omniglot
    for part in ("train", "validation"):
        bank = make_dataset("handwriting", root=root, splits="vinyals").load(part)
        assert list(bank.attributes) == ["script"]
    whole = make_dataset("handwriting", root=root).load("train").attributes["script"]
    assert len(set(whole.names)) == len(whole.names) == 9 + 3
    assert [whole.names[value] for value in whole.values[:2]] == ["omniglot:A", "omniglot:A"]
    parts = [("one", _lettered("A", "B")), ("other", _lettered("A")), ("one", _lettered("B", "C"))]
    joined = side_by_side(parts, "mixed", "train").attributes["script"]
    assert [joined.names[value] for value in joined.values] == ["one:A", "one:B", "other:A", "one:B", "one:C"]


def _lettered(*scripts: str) -> ImageBank:
    pictures = [(script, torch.zeros(2, 1, 8, 8, dtype=torch.uint8)) for script in scripts]
    bank = ImageBank.from_classes(pictures, dataset="letters", split="train", polarity="ink")
    return replace(bank, attributes={"script": Attribute(torch.arange(len(scripts)), scripts)})


def test_only_omniglots_characters_are_turned(omniglot: str) -> None:
    bank = make_dataset("handwriting", root=omniglot, rotations="classes").load("train")
    assert bank.num_classes == 4 * 18 + 6
    assert not any("rot" in name for name in bank.class_names if name.startswith("glyphs:"))


def test_its_splits_leave_classes_out_or_say_that_there_are_none(omniglot: str) -> None:
    names = [
        set(make_dataset("handwriting", root=omniglot, splits="vinyals").load(split).class_names)
        for split in ("train", "validation", "test")
    ]
    assert [len(one) for one in names] == [14, 4, 6]
    assert len(set.union(*names)) == 24
    for split in ("validation", "test"):
        with pytest.raises(InputError, match=r"set validation\.every 0"):
            make_dataset("handwriting", root=omniglot).load(split)
    with pytest.raises(InputError, match="unknown split 'dev'"):
        make_dataset("handwriting", root=omniglot).load("dev")
    with pytest.raises(InputError, match="one of all, vinyals; received 'lake'"):
        make_dataset("handwriting", splits="lake")


def test_what_was_trained_on_it_is_refused_on_its_parts_and_they_on_it(omniglot: str, tmp_path: Path) -> None:
    everything = make_dataset("handwriting", root=omniglot, rotations="classes").load("train")
    seen = classes_seen(everything)
    assert sorted(seen) == ["glyphs", "omniglot"]
    assert len(seen["omniglot"]) == 18

    def encoder(name: str, bank: ImageBank) -> str:
        card = EncoderCard(trained_classes=classes_seen(bank))
        save_encoder(Encoder(EncoderConfig(width=4, latent=2)), tmp_path / name, card)
        return str(tmp_path / name)

    at_large = encoder("at-large", everything)
    for part in (make_dataset("omniglot", root=omniglot, rotations="classes"), FewGlyphs()):
        with pytest.raises(InputError, match="were trained on by"):
            refuse_trained_classes(at_large, part.load("test"))
    with pytest.raises(InputError, match="4 of the 4 classes of the test split were trained"):
        refuse_trained_classes(at_large, make_dataset("omniglot", root=omniglot, splits="lake").load("test"))
    refuse_trained_classes(at_large, replace(FewGlyphs().load("test"), dataset="digits"))

    mixed = make_dataset("handwriting", root=omniglot, splits="vinyals")
    own = encoder("omniglot-train", make_dataset("omniglot", root=omniglot).load("train"))
    refuse_trained_classes(own, mixed.load("test"))
    with pytest.raises(InputError, match="12 of the 24 classes"):
        refuse_trained_classes(own, replace(everything, split="test"))


def test_a_users_folder_may_have_colons_in_its_class_names() -> None:
    bank = replace(FewGlyphs().load("test"), class_names=("a:1", "b:1"), dataset="folder-own")
    assert classes_seen(bank) == {"folder-own": ["a:1", "b:1"]}


def test_the_real_ones(real_data: Path) -> None:
    if not (real_data / "omniglot").is_dir():
        pytest.skip("no omniglot in METAGVAE_DATA")
    bank = make_dataset("handwriting", root=str(real_data / "omniglot")).load("train")
    sources = [name.partition(":")[0] for name in bank.class_names]
    assert sources.count("omniglot") == 1623
    assert len({name.partition("/")[0] for name in bank.class_names}) == 50 + 15
    assert bool((bank.counts == 20).all())
