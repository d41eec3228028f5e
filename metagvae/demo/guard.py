"""Refusals of a page on one's own machine: requests that other sites' pages make, under names of their own."""

from __future__ import annotations

import ipaddress
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from os import environ
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Channel = Callable[..., Awaitable[Any]]
App = Callable[[Scope, Channel, Channel], Awaitable[None]]


class SameOrigin:
    """Lets through what this page asks of itself, and refuses the rest with status 403.

    A site that points its own name at this machine (DNS rebinding) is known by its ``Host``; one that posts here from
    its own page by ``Origin``, or by ``Sec-Fetch-Site`` where a browser leaves that out.

    Args:
        app: what to guard, by the ASGI protocol.
        names: hosts that may stand in ``Host`` beside numeric addresses and ``localhost``.
    """

    def __init__(self, app: App, names: tuple[str, ...] = ()) -> None:
        self.app, self.names = app, {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        problem = self.problem(scope["headers"]) if scope["type"] in ("http", "websocket") else None
        if problem is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": problem.encode()})

    def problem(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Why a request with these headers is refused, or None."""
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip().lower())
        hosts, origins = values.get("host", []), values.get("origin", [])
        if len(hosts) != 1 or not self._known(hosts[0]):
            return "this page is served under its address or localhost only; open it by the address it printed."
        if any(origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}") for origin in origins):
            return "another site's page may not ask anything of this one."
        navigates = "navigate" in values.get("sec-fetch-mode", [])
        if not origins and not navigates and {"cross-site", "same-site"} & set(values.get("sec-fetch-site", [])):
            return "another site's page may not ask anything of this one."
        return None

    def _known(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name = (parts.hostname or "").rstrip(".")
            if parts.netloc != host or "@" in host:
                return False
        except ValueError:
            return False
        return name in self.names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_names(host: str) -> tuple[str, ...]:
    """Names by which a page served on ``host`` may be asked for, beside ``localhost``.

    On this machine alone none; else its own names.
    """
    if host in ("127.0.0.1", "::1", "localhost"):
        return ()
    return (host, socket.gethostname(), socket.getfqdn())


@contextmanager
def private_uploads() -> Iterator[str]:
    """A folder for what visitors upload, nobody else's to read, that is gone at the end, SIGTERM and SIGHUP included.

    It must be there before gradio is imported, which looks for it once.
    """

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    handled = [signal.SIGTERM, signal.SIGHUP] if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, stop) for number in handled}
    with tempfile.TemporaryDirectory(prefix="metagvae-demo-", ignore_cleanup_errors=True) as folder:
        old = environ.get("GRADIO_TEMP_DIR")
        environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield folder
        finally:
            environ.pop("GRADIO_TEMP_DIR") if old is None else environ.update(GRADIO_TEMP_DIR=old)
            for number, handler in before.items():
                signal.signal(number, handler)
