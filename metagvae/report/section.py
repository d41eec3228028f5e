"""A section of a report, and how one says that a run has nothing to put into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Section:
    """A heading and what is under it.

    Args:
        anchor: of links to it, unique on the page.
        title: its heading.
        template: file in ``templates/`` that writes it.
        content: what the template is given. Text in it may be a stranger's; the template escapes it.
        left_out: why there is nothing to show; the template is then not used.
    """

    anchor: str
    title: str
    template: str
    content: dict[str, Any] = field(default_factory=dict)
    left_out: str = ""


class LeftOut(Exception):
    """Raised by a section's function: a sentence that says what the run does not have."""


def readable(text: object, most: int = 80) -> str:
    """Text on one line without what would steer the reader's screen, cut where a stranger made it long."""
    plain = "".join(c if c.isprintable() else "?" for c in str(text))
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
