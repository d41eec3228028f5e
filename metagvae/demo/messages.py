"""Sentences of refusal, shown on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from episodes import InputError


def said(function: Callable[..., Any]) -> Any:
    """The result of a function; or, where it raises `InputError`, that sentence on the page."""
    import gradio as gr

    try:
        return function()
    except InputError as error:
        raise gr.Error(str(error), duration=8, print_exception=False) from error
