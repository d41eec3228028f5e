"""Tables of text: aligned columns for a terminal, Markdown for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def text_table(lines: Sequence[Sequence[str]], rule: bool = False) -> str:
    """Columns aligned to the left, two spaces apart; empty of no lines.

    Args:
        lines: the cells of each line, as many in each; the first line is the heading.
        rule: whether dashes stand below the heading.

    Example:
        >>> print(text_table([["method", "error"], ["pixels", "41.2"]], rule=True))
        method  error
        ------  -----
        pixels  41.2
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    if rule:
        text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """A text table of rows that name their cells; the first row's names are the heading.

    Example:
        >>> print(table_of([{"method": "pixels", "error": "41.2"}]))
        method  error
        ------  -----
        pixels  41.2
    """
    return text_table([list(rows[0]), *(list(row.values()) for row in rows)] if rows else [], rule=True)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """The same cells as a table of a Markdown page.

    Example:
        >>> print(markdown_table([["method", "error"], ["pixels", "41.2"]]))
        | method | error |
        | --- | --- |
        | pixels | 41.2 |
    """
    head, *body = ["|".join(["", *(f" {cell} " if cell else " " for cell in line), ""]) for line in lines]
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])
