"""Sections to one HTML text: everything inline, everything escaped, no script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metagvae.report.section import Section


def render(title: str, about: dict[str, Any], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        title: its heading.
        about: what the opening lines say; see ``templates/page.html``.
        sections: in order.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("metagvae.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(title=title, about=about, sections=sections)
