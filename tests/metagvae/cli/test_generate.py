"""`metagvae generate` on a short run: the same files twice, arrays that are what the grid shows, clear refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metagvae import zoo
from tests.support.commands import call

GUIDANCE = '[{"name": "deformable_pca", "main_decoder": true}]'
KINDS = ["samples", "traversals", "interpolations", "exchange"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from metagvae.cli import main

    folder = tmp_path_factory.mktemp("generate") / "run"
    status = main([
        "pretrain", "--data.name", "glyphs", "--encoder.width", "8", "--encoder.latent", "12", "--vae.guidance",
        GUIDANCE, "--vae.decoder", "residual", "--vae.decoder_width", "8", "--batch", "16", "--optim.steps", "2",
        "--run.folder", str(folder),
    ])  # fmt: skip
    assert status == 0
    return folder


def test_every_kind_is_written_and_a_seed_gives_the_same_bytes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        status, out, err = call(
            capsys, "generate", str(run), "--out", str(tmp_path / folder), "--draw", *KINDS, "--count", "30",
            "--start", "data", "--seed", "4",
        )  # fmt: skip
        assert status == 0, err
        assert all(kind in out for kind in KINDS)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{kind}.{ending}" for kind in KINDS for ending in ("png", "svg", "npz"))
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    status, _, err = call(
        capsys, "generate", str(run), "--out", str(tmp_path / "three"), "--draw", "samples", "--seed", "5"
    )
    assert status == 0, err
    assert (tmp_path / "three" / "samples.npz").read_bytes() != (tmp_path / "one" / "samples.npz").read_bytes()


def test_the_arrays_are_what_the_vae_draws_of_the_latents(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    status, _, err = call(
        capsys, "generate", str(run), "--out", str(tmp_path), "--draw", "traversals", "--units", "down"
    )
    assert status == 0, err
    arrays = np.load(io.BytesIO((tmp_path / "traversals.npz").read_bytes()))
    assert list(arrays["rows"]) == ["geometry: down"]
    expected = zoo.open(run).vae().decode(torch.from_numpy(arrays["latents"][0]))
    assert np.abs(arrays["images"][0] - 255 * expected.detach().numpy()).max() <= 0.51
    with Image.open(tmp_path / "traversals.png") as picture:
        assert picture.size[0] > picture.size[1] > 50


def test_a_generator_is_exported_with_its_decoder_and_draws_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    for half in ("false", "true"):
        folder = tmp_path / f"half-{half}"
        status, _, err = call(capsys, "export-encoder", str(run), str(folder), "--decoder", "true", "--half", half)
        assert status == 0, err
        vae, drawn = zoo.open(run).vae(), zoo.open(folder).vae()
        z = torch.randn(9, 12)
        gap = (vae.decode(z) - drawn.decode(z)).detach().abs().max()
        assert float(gap) <= (2e-3 if half == "true" else 0.0)
        assert next(drawn.parameters()).dtype == torch.float32
        assert zoo.open(folder).data.name == "glyphs"
    sizes = [(tmp_path / f"half-{half}" / "vae.safetensors").stat().st_size for half in ("false", "true")]
    assert sizes[1] < 0.6 * sizes[0]
    # what a stranger writes into the folder ends in a sentence
    config = json.loads((folder / "config.json").read_text())
    for damage in ({"vae": {"decoder": 3}}, {"vae": {"decoder_width": 10**9}}, {"attributes": "many"}):
        (folder / "config.json").write_text(json.dumps({**config, "run": {**config["run"], **damage}}))
        status, _, err = call(capsys, "generate", str(folder), "--out", str(tmp_path / "out"))
        assert status == 2
        assert err.startswith("metagvae: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "out" / "samples.png").exists()


def test_an_export_replaces_nobodys_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("my project")
    weights = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for words in (["guided-vae-omniglot", str(project)], [str(run), str(run), "--decoder", "true"]):
        status, _, err = call(capsys, "export-encoder", *words)
        assert (status, "is not empty; choose another folder" in err) == (2, True), err
    assert [path.name for path in project.iterdir()] == ["README.md"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == weights
    status, _, err = call(capsys, "export-encoder", "guided-vae-omniglot", str(project / "README.md"))
    assert (status, "is a file; choose a folder" in err) == (2, True), err
    (tmp_path / "empty").mkdir()
    status, _, err = call(capsys, "export-encoder", "guided-vae-omniglot", str(tmp_path / "empty"))
    assert status == 0, err


def test_an_export_passes_over_no_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--to", "onnx", "--name", "Foo"], "--name goes with --to safetensors"),
        (["--root", "nowhere"], "--root goes with --stopped true"),
    ):
        status, _, err = call(capsys, "export-encoder", "guided-vae-omniglot", str(tmp_path / "out"), *words)
        assert (status, says in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_a_generator_that_refines_its_answer_rebuilds_better_and_draws_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    folder, steps = tmp_path / "refined", '{"steps": 8, "step": 0.3}'
    status, _, err = call(capsys, "export-encoder", str(run), str(folder), "--decoder", "true", "--refinement", steps)
    assert status == 0, err
    plain, finer = zoo.open(run).vae(), zoo.open(folder).vae()
    images = torch.rand(5, 1, 28, 28)
    before, after = plain.infer(images).mean, finer.infer(images).mean
    assert bool((plain.log_joint(images, after) > plain.log_joint(images, before)).all())
    assert torch.equal(finer.encoder(images), plain.encoder(images)), "features are one pass away, as before"
    assert torch.equal(finer.decode(before), plain.decode(before))
    assert zoo.read_card(folder).method.endswith("; then refined by short-run inference, steps 8, step 0.3")
    for wrong, said in (('{"steps": 0}', "steps"), ('{"start": "prior"}', "start"), ('{"lengths": 3}', "lengths")):
        status, _, err = call(
            capsys, "export-encoder", str(run), str(tmp_path / "no"), "--decoder", "true", "--refinement", wrong
        )
        assert status == 2
        assert err.startswith("metagvae: ")
        assert said in err
        assert not (tmp_path / "no").exists()
    status, _, err = call(capsys, "export-encoder", str(run), str(tmp_path / "no"), "--refinement", steps)
    assert status == 2
    assert "--decoder true" in err


def test_a_stopped_run_is_exported_and_draws_as_its_state_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    run, words = tmp_path / "run", ["--data.name", "glyphs", "--encoder.width", "8", "--encoder.latent", "12"]
    training = ["pretrain", *words, "--vae.guidance", GUIDANCE, "--batch", "16", "--optim.steps", "5"]
    status, _, err = call(capsys, *training, "--run.folder", str(run), "--run.stop_after", "3")
    assert status != 0
    status, _, err = call(capsys, "export-encoder", str(run), str(tmp_path / "early"), "--decoder", "true")
    assert status == 2, "a run without an encoder is exported by its state alone, when asked"
    folder = tmp_path / "out"
    status, _, err = call(
        capsys, "export-encoder", str(run), str(folder), "--decoder", "true", "--stopped", "true", "--name", "half-way"
    )
    assert status == 0, err
    drawn, card = zoo.open(folder).vae(), zoo.read_card(folder)
    assert card.name == "half-way"
    assert card.method.endswith("3 of 5 steps of 16 pictures")
    assert card.trained_classes
    state = torch.load(run / "state" / "step-0000003.pt", weights_only=True)["module"]
    assert all(torch.equal(value, drawn.state_dict()[name]) for name, value in state.items())
    # finished, the run is exported as any other
    status, _, err = call(capsys, *training, "--run.folder", str(run), "--run.resume", "true")
    assert status == 0, err
    status, _, err = call(capsys, "export-encoder", str(run), str(tmp_path / "late"), "--decoder", "true")
    assert status == 0, err
    assert zoo.read_card(tmp_path / "late").trained_classes == card.trained_classes


def test_what_cannot_be_exported_from_a_state_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, message in (("guided-vae-omniglot", "is no run folder"), (str(tmp_path), "is no run folder")):
        status, _, err = call(capsys, "export-encoder", source, str(tmp_path / "out"), "--stopped", "true")
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    state = run / "state"
    kept = tmp_path / "kept"
    state.rename(kept)
    try:
        status, _, err = call(capsys, "export-encoder", str(run), str(tmp_path / "out"), "--stopped", "true")
    finally:
        kept.rename(state)
    assert status == 2
    assert "no state yet" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no encoder 'nowhere'"),
        (["guided-vae-omniglot"], "without its decoder"),
        (["RUN", "--draw", "dreams"], "--draw takes some of"),
        (["RUN", "--count", "0"], "--count must be between 1"),
        (["RUN", "--temperature", "0"], "--temperature"),
        (["RUN", "--start", "here"], "--start must be"),
        (["RUN", "--units", "spin", "--draw", "traversals"], "'spin'"),
        (["RUN", "--draw", "attribute"], "needs --attribute"),
        (["RUN", "--draw", "attribute", "--attribute", "colour"], "no attribute 'colour'"),
        (["RUN", "--draw", "exchange", "--keep", "style"], "'style'"),
        (["RUN", "--out", "RUN"], "choose another --out"),
        (["RUN", "--draw", "samples", "--attribute", "class"], "--attribute goes with --draw attribute"),
        (
            ["RUN", "--draw", "samples", "--keep", "content"],
            "--keep goes with --draw exchange",
        ),
        (["RUN", "--draw", "samples", "--units", "down"], "--units goes with --draw traversals"),
        (["RUN", "--draw", "traversals", "--count", "9"], "--count goes with --draw samples"),
        (["RUN", "--draw", "samples", "--start", "data"], "--start goes with --draw traversals or"),
        (["RUN", "--split", "train"], "--split goes with --start data"),
        (["RUN", "--data", "nosuch"], "--data goes with --start data"),
        (["RUN", "--root", "nowhere"], "--root goes with --start data"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    arguments: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run) if word == "RUN" else word for word in arguments]
    out = [] if "--out" in words else ["--out", str(tmp_path)]
    status, _, err = call(capsys, "generate", *words, *out)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
