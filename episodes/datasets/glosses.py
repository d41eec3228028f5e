"""WordNet's glosses: which lexicographer's file a definition is from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from episodes.datasets.base import DATASETS, Dataset
from episodes.errors import InputError
from episodes.tokens import TokenBank
from episodes.untrusted.wordnet_files import Gloss, read_glosses

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
INSTALLED = Path("/usr/share/wordnet")  # where Debian's package wordnet-base puts them
LEAST = 20  # glosses that a class must have, each of the length asked for
SYMBOLS = "".join(sorted(" !\"%&'()*+,-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]`abcdefghijklmnopqrstuvwxyz"))
# lexicographers' files by number: lexnames(5WN)
FIELDS = [
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute",
    "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group",
    "noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant",
    "noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state",
    "noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication",
    "verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion",
    "verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl",
]  # fmt: skip


@DATASETS.register
@dataclass(frozen=True)
class Glosses(Dataset):
    """The first characters of WordNet's definitions; a class is a lexicographer's file, such as ``noun.food``.

    Definitions stand before the first semicolon and the examples of a gloss; shorter ones than ``size`` are left out.
    Every third file is a class of the test split, every third of the others one of validation.

    Args:
        root: a folder with ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv`` of WordNet 3; None looks in the
            usual places, then where Debian's package wordnet-base puts them.
        size: characters of a text, 48 unless set.
    """

    name = "glosses"
    default_size = 48
    licence = "WordNet 3.0 licence (free use with its notice)"

    def load_split(self, split: str) -> TokenBank:
        classes = [(name, texts) for name, texts in self._texts() if _split(name) == split]
        kept = [(name, texts) for name, texts in classes if len(texts) >= LEAST]
        if not kept:
            raise InputError(
                f"no class of the {split} split of glosses has {LEAST} definitions of {self.side} characters. Lower "
                "data.size (--size)."
            )
        return TokenBank.of_texts(kept, SYMBOLS, dataset=self.name, split=split)

    def _texts(self) -> list[tuple[str, list[str]]]:
        """Each field's definitions, cut to one length, no text twice in all."""
        folder = self._folder()
        seen: set[str] = set()
        texts: dict[str, list[str]] = {name: [] for name in FIELDS}
        for file in FILES:
            for gloss in read_glosses(folder / file, len(FIELDS)):
                text = _definition(gloss)[: self.side]
                if len(text) == self.side and text not in seen:
                    seen.add(text)
                    texts[FIELDS[gloss.field]].append(text)
        return list(texts.items())

    def _folder(self) -> Path:
        try:
            return self.find_root(*FILES)
        except InputError:
            if self.root is None and (INSTALLED / FILES[0]).exists():
                return INSTALLED
            raise

    @property
    def remedy(self) -> str:
        return "install Debian's package wordnet-base"

    def fetch(self, folder: Path) -> None:
        """Raises `InputError`: the files come with a package of the system."""
        raise InputError(f"glosses come with WordNet: {self.remedy}, or put {', '.join(FILES)} into {folder}.")


def _definition(gloss: Gloss) -> str:
    """A gloss up to its first semicolon or example, its spaces single."""
    return " ".join(gloss.text.split(";")[0].split('"')[0].split())


def _split(name: str) -> str:
    """The split of a field: by its place among all, so that each split has nouns and verbs."""
    place = FIELDS.index(name)
    if place % 3 == 2:
        return "test"
    return "validation" if place % 9 in (1, 6) else "train"
