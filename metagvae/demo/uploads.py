"""A mend for gradio's page, which asks how far an upload is before it has a name: it is told that there is none."""

from __future__ import annotations

from urllib.parse import parse_qs

from metagvae.demo.guard import App, Channel, Scope

_DONE = b'data: {"msg": "done"}\n\n'


class NamelessUploads:
    """Answers ``upload_progress?upload_id=`` at once; gradio waits three seconds and then logs an error on the page.

    Args:
        app: what answers all else, by the ASGI protocol.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/upload_progress") or _named(scope["query_string"]):
            await self.app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _DONE})


def _named(query: bytes) -> bool:
    return bool(parse_qs(query.decode("latin-1")).get("upload_id"))
