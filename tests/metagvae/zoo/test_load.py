from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import metagvae
from episodes import InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.convert import import_weights, read_weights, renamed
from metagvae.zoo.load import load_encoder, read_card, save_encoder, shipped_encoders

UNITS = {"geometry": [0, 1], "content": [2, 3, 4]}


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderConfig(width=8, latent=5, units=UNITS, features=["content"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(encoder(), tmp_path / "enc", EncoderCard(name="mine", licence="MIT"))
    return tmp_path / "enc"


def test_round_trip(folder: Path) -> None:
    loaded, original = load_encoder(folder), encoder().eval()
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(loaded(x), original(x))
    assert loaded.units == UNITS
    assert loaded(x).shape == (3, 3)
    assert not loaded.training
    assert load_encoder(folder, ["latent"])(x).shape == (3, 5)
    assert read_card(folder).licence == "MIT"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_shipped_encoders_load_and_have_cards() -> None:
    assert "guided-vae-omniglot" in shipped_encoders()
    for name, path in shipped_encoders().items():
        loaded = metagvae.load_encoder(name)
        config = loaded.config
        out = loaded(torch.rand(2, config.channels, config.size, config.size))
        assert out.shape == (2, loaded.feature_size)
        assert sum(file.stat().st_size for file in path.iterdir()) < 2 * 2**20
        card = read_card(name)
        assert "unknown" not in (card.trained_on, card.method, card.licence)
        assert (path / "README.md").is_file()


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(InputError, match="guided-vae-omniglot"):
        load_encoder("no-such-encoder")


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["encoder"].update(changes)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 16}, "of another shape"),
        ({"width": 100000}, "width must be between"),
        ({"latent": 5.5}, "latent"),
        ({"backbone": "os.system"}, "allowed: conv4"),
        ({"units": {"content": [0]}}, "units"),
        ({"depth": 9}, "unknown encoder setting 'depth'"),
    ],
)
def test_configs_that_do_not_fit_are_refused(folder: Path, changes: dict, message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_encoder(folder)


def test_wrong_weights_are_named(folder: Path) -> None:
    tensors = encoder().state_dict()
    tensors["to_mean.wieght"] = tensors.pop("to_mean.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"missing: to_mean.weight; unexpected: to_mean.wieght"):
        load_encoder(folder)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "forged header", "config"])
def test_damaged_files_are_refused(folder: Path, kind: str) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    if kind == "config":
        (folder / "config.json").write_text("[" * 2000)
    else:
        forged = struct.pack("<Q", 2**62) + data[8:]
        weights.write_bytes(
            {"empty": b"", "text": b"hello" * 40, "cut": data[: len(data) // 2], "forged header": forged}[kind]
        )
    with pytest.raises(InputError, match=r"safetensors|config\.json"):
        load_encoder(folder)


class Payload:
    """Runs code when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def settings(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps({"width": 8, "latent": 5, **changes}))
    return path


def test_foreign_weights_come_in_under_a_prefix_map(tmp_path: Path) -> None:
    source = encoder().eval()
    foreign = {f"module.net.{name}": value for name, value in source.state_dict().items()}
    foreign["module.net.bn.num_batches_tracked"] = torch.tensor(3)
    torch.save({"state_dict": foreign, "epoch": 3}, tmp_path / "foreign.pt")
    prefixes = {"module.net.": ""}
    report = import_weights(tmp_path / "foreign.pt", settings(tmp_path), None, prefixes, True, False)
    assert f"matched: {len(source.state_dict())} of" in report
    assert "nothing was written" in report
    import_weights(tmp_path / "foreign.pt", settings(tmp_path), tmp_path / "out", prefixes, False, False)
    loaded = load_encoder(tmp_path / "out", ["latent"])
    source.features = ["latent"]
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(x), source(x))


def test_a_plain_backbone_comes_in_without_a_latent(tmp_path: Path) -> None:
    source = encoder().eval()
    save_file(dict(source.backbone.state_dict()), tmp_path / "b.safetensors")
    prefixes = {"": "backbone."}
    with pytest.raises(InputError, match="missing: 4"):
        import_weights(tmp_path / "b.safetensors", settings(tmp_path), tmp_path / "out", prefixes, False, False)
    assert not (tmp_path / "out").exists()
    import_weights(tmp_path / "b.safetensors", settings(tmp_path), tmp_path / "out", prefixes, False, True)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(load_encoder(tmp_path / "out")(x), source.maps(x))


def test_misfits_are_reported_and_nothing_is_written(tmp_path: Path) -> None:
    save_file({"backbone.blocks.0.0.weight": torch.zeros(3), "extra": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"(?s)received \[3\], wanted \[8, 1, 3, 3\].*unexpected: 1.*extra"):
        import_weights(tmp_path / "w.safetensors", settings(tmp_path), tmp_path / "out", {}, False, False)
    assert not (tmp_path / "out").exists()


def test_code_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": Payload(marker)}, tmp_path / "evil.pt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps(Payload(marker)))
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(InputError, match="Nothing in it was run"):
            read_weights(tmp_path / name)
    assert not marker.exists()


def test_prefixes_that_collide_are_refused() -> None:
    with pytest.raises(InputError, match="two weights"):
        renamed({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, {"a.": "", "b.": ""})


def test_import_metagvae_is_light() -> None:
    code = (
        "import sys, metagvae; metagvae.load_encoder; "
        "heavy = ('learn2learn', 'gym', 'matplotlib', 'gradio', 'sklearn', 'tensorboard');"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
