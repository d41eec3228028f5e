"""The demo's guard: requests of other sites are refused, little is kept of visitors, nothing is left at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from episodes import InputError
from metagvae.demo.drawing import MOST, Characters
from metagvae.demo.guard import SameOrigin, own_names, private_uploads
from metagvae.demo.ink import LARGEST, take_upload

HERE = "127.0.0.1:7860"


def status(headers: list[tuple[str, str]], names: tuple[str, ...] = (), kind: str = "http") -> object:
    """Answer of a guarded page: 200, the status of a refusal, or ``closed``."""
    sent: list[dict] = []

    async def page(scope: object, receive: object, send: object) -> None:
        sent.append({"status": 200})

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(SameOrigin(page, names)(scope, None, send))
    return "closed" if sent[0].get("type") == "websocket.close" else sent[0]["status"]


@pytest.mark.parametrize(
    "host",
    [HERE, "127.0.0.1", "localhost:7860", "LOCALHOST:8080", "[::1]:7860", "192.168.1.5:7860", "localhost.:7860"],
)
def test_the_page_itself_is_answered(host: str) -> None:
    assert status([("host", host)]) == 200
    assert status([("Host", host), ("Origin", f"http://{host}")]) == 200
    assert status([("host", host), ("origin", f"https://{host}"), ("sec-fetch-site", "same-origin")]) == 200
    link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]  # somebody's link to it
    assert status([("host", host), *link]) == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "")],
        [("host", "evil.example:7860")],
        [("host", "localhost.evil.example")],
        [("host", "127.0.0.1.evil.example:7860")],
        [("host", "evil.example@127.0.0.1:7860")],
        [("host", "127.0.0.1:7860/x")],
        [("host", "127.0.0.1:7860#x")],
        [("host", "[::1")],
        [("host", HERE), ("host", "evil.example")],
        [("host", HERE), ("origin", "http://evil.example")],
        [("host", HERE), ("origin", "null")],
        [("host", HERE), ("origin", "")],
        [("host", HERE), ("origin", "http://127.0.0.1:8888")],
        [("host", HERE), ("origin", "http://localhost:7860")],
        [("host", HERE), ("origin", f"http://{HERE}"), ("origin", "http://evil.example")],
        [("host", HERE), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
        [("host", HERE), ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")],
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_other_sites_and_names_are_refused(headers: list[tuple[str, str]], kind: str) -> None:
    assert status(headers, kind=kind) == (403 if kind == "http" else "closed")


def test_a_served_name_is_known_only_where_it_is_served() -> None:
    own = socket.gethostname()
    assert status([("host", f"{own}:7860")], own_names("0.0.0.0")) == 200
    assert own_names("127.0.0.1") == ()
    assert status([("host", "lab.example:7860")], own_names("lab.example")) == 200
    assert status([("host", "evil.example:7860")], own_names("lab.example")) == 403


def large(path: Path, mode: str = "1") -> Path:
    picture = Image.new(mode, (8000, 8000), "white" if mode != "P" else 255)
    ImageDraw.Draw(picture).rectangle((1000, 1000, 7000, 7000), fill=0)
    picture.save(path)
    return path


def test_large_uploads_are_held_small(tmp_path: Path) -> None:
    characters = Characters("guided-protonet-omniglot")
    for number, mode in enumerate(("1", "L", "1", "L", "1")):
        path = large(tmp_path / f"{number}.png", mode)
        assert path.stat().st_size < 2**18
        characters.add("A", take_upload(str(path)))
        assert not path.exists()
    held = characters.examples["A"]
    assert len(held) == MOST
    assert all(max(picture.size) <= 2 * LARGEST for picture in held)
    with pytest.raises(InputError, match="has 5 examples already"):
        characters.check_room("A")


def test_an_upload_that_is_no_picture_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("no picture")
    with pytest.raises(InputError):
        take_upload(str(path))
    assert not path.exists()


def test_uploads_lie_in_a_private_folder_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    seen = []

    def visit() -> None:
        with private_uploads() as name:
            seen.append((name, stat.S_IMODE(os.stat(name).st_mode), os.environ["GRADIO_TEMP_DIR"]))
            (Path(name) / "upload.png").write_bytes(b"x")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        visit()
    name, mode, told = seen[0]
    assert mode == 0o700
    assert told == name
    assert not Path(name).exists()
    assert "GRADIO_TEMP_DIR" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """The command itself: an upload, an upload from elsewhere, and the end."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[demo]'")
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "metagvae", "demo", "--port", str(port)]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    place.pop("GRADIO_TEMP_DIR", None)

    with subprocess.Popen(command, env=place, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert "open http" in running.stdout.readline()
            address = f"http://127.0.0.1:{port}"
            with large(tmp_path / "a.png").open("rb") as file:
                data = file.read()
            (tmp_path / "a.png").unlink()

            def post(**headers: str) -> int:
                upload = {"files": ("a.png", data, "image/png")}
                return httpx.post(f"{address}/gradio_api/upload", files=upload, headers=headers, timeout=60).status_code

            before = len(list(tmp_path.rglob("a.png")))
            assert post(Origin="http://evil.example") == 403
            assert post(Host=f"evil.example:{port}") == 403
            assert len(list(tmp_path.rglob("a.png"))) == before
            assert post() == 200
            assert post(Origin=address) == 200
            assert httpx.get(address, timeout=60).status_code == 200
            folders = list(tmp_path.iterdir())
            assert len(folders) == 1, folders
            assert stat.S_IMODE(folders[0].stat().st_mode) == 0o700
            assert list(folders[0].rglob("a.png"))
        finally:
            running.send_signal(number)
            try:
                running.wait(60)
            finally:
                running.kill()
    assert list(tmp_path.iterdir()) == []
