"""Exported files give what the module gives, for any batch; what does not is not written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from episodes import InputError
from metagvae.cli import main
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.external import load_foreign
from metagvae.zoo import export
from metagvae.zoo.trained import load_encoder
from tests.support.faults import launched, with_files_up_to


def small(**changes: object) -> Encoder:
    torch.manual_seed(0)
    settings = {"width": 8, "latent": 5, "size": 32, "mean": 0.5, "std": 0.25, **changes}
    return Encoder(EncoderConfig(**settings)).eval()


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_shipped_encoders_in_batches_of_1_and_37(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if to == "onnx":
        if torch.__version__ < "2.6":
            pytest.skip("torch's exporter to ONNX takes a program from 2.6 on")
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path / f"encoder{export.FORMATS[to]}"
    name = "guided-protonet-omniglot"
    assert main(["export-encoder", name, str(path), "--to", to]) == 0
    assert "largest difference" in capsys.readouterr().out
    module = load_encoder(name)
    if to == "onnx":
        session = runtime.InferenceSession(str(path))
        ask = lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])  # noqa: E731
    else:
        ask = torch.export.load(path).module()
    for batch in (1, 37, 5):
        x = torch.rand(batch, 1, 28, 28)
        with torch.no_grad():
            torch.testing.assert_close(ask(x), module(x), atol=1e-4, rtol=0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert main(["export-encoder", name, str(path), "--to", to]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"norm": "group"}, {"backbone": "resnet12", "features": ["latent", "backbone"]}])
def test_every_kind_of_encoder(changes: dict, tmp_path: Path) -> None:
    assert export.export_to(small(**changes), tmp_path / "x.pt2", "torch-export") < 1e-4


def test_a_network_of_torchvision(tmp_path: Path) -> None:
    encoder = load_foreign("torchvision:mobilenet_v3_small", pretrained=False)
    encoder.config.size = 64
    assert export.export_to(encoder, tmp_path / "x.pt2", "torch-export") < 1e-4


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = export._torch_export

    def off(module: Encoder) -> tuple[bytes, export.Ask]:
        data, ask = honest(module)
        return data, lambda images: ask(images) + 0.01

    monkeypatch.setattr(export, "_torch_export", off)
    with pytest.raises(InputError, match="differs from the module"):
        export.export_to(small(), tmp_path / "x.pt2", "torch-export")
    assert not list(tmp_path.iterdir())


def test_two_exports_to_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, path = export._torch_export, tmp_path / "x.pt2"

    def meanwhile(*given: object):
        made = honest(*given)
        monkeypatch.setattr(export, "_torch_export", honest)
        export.export_to(small(), path, "torch-export")
        return made

    monkeypatch.setattr(export, "_torch_export", meanwhile)
    export.export_to(small(), path, "torch-export")
    assert list(tmp_path.iterdir()) == [path]
    x = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(torch.export.load(path).module()(x), small()(x))


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    for encoder, name, to, message in (
        (small(norm="support"), "x.pt2", "torch-export", "norm policy is 'support'"),
        (small(), "x.pt", "torch-export", r"ends in \.pt2"),
        (small(), "x.h5", "keras", "onnx, torch-export or safetensors"),
    ):
        with pytest.raises(InputError, match=message):
            export.export_to(encoder, tmp_path / name, to)


@pytest.mark.parametrize("to", list(export.FORMATS))
def test_a_full_disk_is_one_sentence_and_leaves_nothing(to: str, tmp_path: Path) -> None:
    """torch's own writer would end the process."""
    if to == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    path = tmp_path / "out" / f"encoder{export.FORMATS[to]}"
    path.parent.mkdir()

    def work() -> None:
        assert main(["export-encoder", "guided-protonet-omniglot", str(path), "--to", to]) == 2

    launch = launched(with_files_up_to(20_000, work), tmp_path)
    assert launch.status == 0, launch.said
    assert launch.said.count("\n") == 1
    assert "no room" in launch.said
    assert not list(path.parent.iterdir())
