"""The encoder that carries its decoder: equal to the VAE's inference, saved and loaded, ranked like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import metagvae
from episodes import InputError
from metagvae import zoo
from metagvae.cli import main
from metagvae.config.sections import EncoderSection, VAESection
from metagvae.guidance import GuidanceContext
from metagvae.storage.tensors import read_tensors, write_tensors
from metagvae.studies.refine import refined_card
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.vae.priors import StandardNormal
from metagvae.vae.refined_encoder import RefinedEncoder, refined
from metagvae.zoo.build import new_encoder, new_vae
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.export import export_to
from metagvae.zoo.load import save_encoder
from tests.support.banks import stripes
from tests.support.report_images import draw_classes

OPTIONS = {"steps": 4, "step": 0.3}


def vae_of(inference: dict[str, Any] | None = None) -> GuidedVAE:
    guidance = [{"name": "deformable_pca"}]
    section = VAESection(decoder_width=4, guidance=guidance, inference=inference or {"name": "amortised"})
    encoder = new_encoder(EncoderSection(width=8, latent=12), section, stripes(3, 2, 28), 0)
    return new_vae(encoder, section, {}).eval()


def test_it_is_the_vaes_own_short_run() -> None:
    vae = vae_of({"name": "short_run", **OPTIONS})
    encoder = refined(vae, "upsampling", 4, OPTIONS)
    images = torch.rand(5, 1, 28, 28)
    expected = vae.infer(images)
    with torch.no_grad():
        assert torch.allclose(encoder.posterior(images).mean, expected.mean, atol=1e-6)
        assert torch.equal(encoder.posterior(images).log_var, expected.log_var)
        assert torch.equal(encoder(images), encoder.posterior(images).mean)
        encoder.features = ["geometry", "backbone"]
        both = encoder(images)
        assert torch.equal(both[:, :6], encoder.posterior(images).mean[:, encoder.units["geometry"]])
        assert torch.equal(both[:, 6:], encoder.maps(images))
        encoder.features = ["backbone"]
        assert torch.equal(encoder(images), encoder.maps(images))
    # a copy: the VAE goes its own way
    before = encoder.decoder.first.weight.clone()
    vae.decoder.first.weight.data.zero_()
    assert torch.equal(encoder.decoder.first.weight, before)


def test_a_decoder_that_a_guidance_wraps_is_refused() -> None:
    vae = zoo.open("generator-omniglot").vae()
    vae.prior = StandardNormal(GuidanceContext(1, 28, vae.encoder.units))  # its own is refused before
    with pytest.raises(InputError, match="warped by its guidance"):
        refined(vae, "residual", 4, OPTIONS)


def test_it_is_saved_with_its_decoder_and_loaded_as_it_was(tmp_path: Path) -> None:
    encoder = refined(vae_of(), "upsampling", 4, OPTIONS)
    encoder.features = ["content"]
    save_encoder(encoder, tmp_path / "refined")
    content = json.loads((tmp_path / "refined" / "config.json").read_text())
    assert content["kind"] == "refined"
    assert content["encoder"]["refinement"] == OPTIONS
    assert any(name.startswith("decoder.") for name in read_tensors(tmp_path / "refined" / "model.safetensors"))
    again = metagvae.load_encoder(tmp_path / "refined")
    images = torch.rand(5, 1, 28, 28)
    assert isinstance(again, RefinedEncoder)
    assert torch.equal(again(images), encoder(images))
    tensors = read_tensors(tmp_path / "refined" / "model.safetensors")
    del tensors["decoder.first.weight"]
    write_tensors(tmp_path / "refined" / "model.safetensors", tensors)
    with pytest.raises(InputError, match=r"missing: decoder\.first\.weight"):
        metagvae.load_encoder(tmp_path / "refined")


def test_its_card_has_no_calibration_of_the_features_of_before() -> None:
    details = {"seed": 3, "calibration": {"content": {"temperature": 1.0}}, "sets": {"content": {}}}
    card = refined_card(EncoderCard(name="one", method="a VAE", details=details), {"steps": 5}, "two")
    assert card == EncoderCard("two", method="a VAE; refined by short-run inference, steps 5", details={"seed": 3})
    assert set(details) == {"seed", "calibration", "sets"}


def test_gradients_reach_the_encoder_for_fine_tuning() -> None:
    encoder = refined(vae_of(), "upsampling", 4, OPTIONS).train()
    encoder(torch.rand(3, 1, 28, 28)).square().sum().backward()
    assert encoder.to_mean.weight.grad is not None
    assert all(weight.grad is None for weight in encoder.decoder.parameters())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"refinement": {"steps": 0}}, "short_run needs steps from 1"),
        ({"refinement": {"stops": 1}}, r"encoder\.refinement: .* has no option 'stops'"),
        ({"refinement": {"steps": "many"}}, r"encoder\.refinement: .*steps must be int"),
        ({"decoder": "mirror"}, r"encoder\.decoder: unknown decoder 'mirror'"),
        ({"decoder_width": 0}, r"encoder\.decoder_width must be between 1 and 1024"),
        ({"likelihood": "poisson"}, r"encoder\.likelihood must be"),
        ({"sigma": -1.0}, r"encoder\.sigma positive"),
        ({"sigma": float("nan")}, r"encoder\.sigma positive"),
    ],
)
def test_a_damaged_config_is_refused(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    save_encoder(refined(vae_of(), "upsampling", 4, OPTIONS), tmp_path / "bad")
    path = tmp_path / "bad" / "config.json"
    content = json.loads(path.read_text())
    content["encoder"].update(settings)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        metagvae.load_encoder(tmp_path / "bad")


def test_what_it_cannot_do_is_told(tmp_path: Path) -> None:
    encoder = refined(vae_of(), "upsampling", 4, OPTIONS)
    with pytest.raises(InputError, match="an encoder of kind 'refined' takes gradient steps at every call"):
        export_to(encoder, tmp_path / "encoder.pt2", "torch-export")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refine")
    draw_classes(root / "pictures", {"train": 4, "validation": 3, "test": 5}, each=16)
    words = ["pretrain", "--data.name", "folder", "--data.size", "28", "--data.root", str(root / "pictures")]
    words += ["--data.options", '{"channels": 1}', "--encoder.width", "8", "--encoder.latent", "5", "--batch", "8"]
    words += ["--vae.decoder_width", "4", "--optim.steps", "20", "--run.folder", str(root / "run")]
    assert main([*words, "--run.device", "cpu"]) == 0
    return root / "run"


def test_the_command_measures_the_bound_and_the_errors_and_writes_the_encoder(run: Path, tmp_path: Path) -> None:
    file, figure, out = tmp_path / "refine.json", tmp_path / "refine.png", tmp_path / "refined"
    words = ["refine", str(run), "--steps", "0", "2", "8", "--options", '{"step": 0.3}', "--way", "3", "--episodes"]
    words += ["20", "--images", "30", "--device", "cpu", "--json", str(file), "--figure", str(figure)]
    assert main([*words, "--out", str(out)]) == 0
    content = json.loads(file.read_text())
    assert [row["steps"] for row in content["rows"]] == ["0", "2", "8"]
    sums = [found["sum"] for found in content["bounds"]]
    assert sums[2] < sums[1] < sums[0]  # steps on log p(x, z) do lower it
    assert len(content["errors"]) == 3
    assert len(content["differences"]) == 2
    assert figure.stat().st_size > 5000
    trained = zoo.open(run)
    encoder = metagvae.load_encoder(out)
    assert isinstance(encoder, RefinedEncoder)
    assert encoder.carried.refinement == {"step": 0.3, "steps": 8}
    assert "refined by short-run inference, step 0.3, steps 8" in zoo.open(out).card.method
    assert zoo.open(out).card.trained_classes == trained.card.trained_classes
    bank = trained.data.make().load("test")
    images = bank.images.float() / 255
    vae = trained.vae()
    with torch.no_grad():
        gain = vae.log_joint(images, encoder(images)) - vae.log_joint(images, vae.infer(images).mean)
    assert float(gain.min()) > 0


def test_senseless_steps_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--steps", "-1"], "--steps takes different numbers of 0 or more"),
        (["--steps", "2", "2"], "--steps takes different numbers of 0 or more"),
        (["--steps", "0", "--out", str(tmp_path / "new")], "a last number of steps above 0"),
        (["--options", '{"stop": 1}'], "has no option 'stop'"),
        (["--options", '{"steps": 7}', "--steps", "0", "1"], "--options takes no steps"),
        (["--images", "0"], "--images must be 1 or more; received 0"),
        (["--images", "-5"], "--images must be 1 or more; received -5"),
    ):
        assert main(["refine", str(run), *words]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_measured_is_refused_before_the_bounds_by_the_runs_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metagvae.studies.refine.bound", lambda *_: pytest.fail("a bound was measured"))
    (tmp_path / "file").write_text("")
    for words, says in (
        (["--way", "50"], "50"),
        (["--episodes", "0"], "episodes"),
        (["--features", "style"], "style"),
        (["--out", str(tmp_path / "file" / "x")], "cannot write"),
    ):
        way = [] if "--way" in words else ["--way", "3"]
        assert main(["refine", str(run), "--steps", "0", "2", *way, *words]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert "steps-" not in err, "no temporary folder is named"


def test_classes_that_were_trained_on_are_refused_by_the_runs_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metagvae.studies.refine.bound", lambda *_: pytest.fail("a bound was measured"))
    root = tmp_path / "pictures"
    shutil.copytree(run.parent / "pictures" / "train", root / "test")
    words = ["--data", "folder", "--root", str(root), "--way", "3", "--shot", "1", "--query", "2"]
    assert main(["refine", str(run), "--steps", "0", "2", *words]) == 2
    assert f"trained on by {run}" in " ".join(capsys.readouterr().err.split())


def test_a_point_has_no_kl(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "refine.json"
    words = ["--steps", "0", "1", "--options", '{"start": "prior"}', "--way", "3", "--episodes", "3", "--images", "9"]
    assert main(["refine", str(run), *words, "--device", "cpu", "--json", str(file)]) == 0
    assert "nan" not in capsys.readouterr().out
    content = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    encoder, point = content["bounds"]
    assert encoder["kl"] > 0
    assert (point["kl"], point["sum"]) == (None, None)
    assert [content["rows"][1][name] for name in ("KL, nats", "sum", "change")] == ["–"] * 3
