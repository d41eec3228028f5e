from __future__ import annotations

import json
import math
import pickle
import struct
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import metagvae
from episodes import InputError
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.external import ForeignConfig
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.convert import import_weights
from metagvae.zoo.load import save_encoder, shipped_encoders
from metagvae.zoo.state_dicts import read_state_dicts, renamed
from metagvae.zoo.trained import load_encoder, read_card

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
        assert max(file.stat().st_size for file in path.iterdir()) < 2 * 10**6
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
        ({"backbone": "os.system"}, "backbone.*conv4"),
        ({"units": {"content": [0]}}, "units"),
        ({"depth": 9}, "unknown encoder setting 'depth'"),
    ],
)
def test_configs_that_do_not_fit_are_refused(folder: Path, changes: dict, message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_encoder(folder)


OTHERS = (True, None, 3, 2.5, "text", [1], [True], ["a"], [None], {"a": [0]}, {"a": 1}, float("nan"), float("inf"), -1)


def shape(value: object) -> object:
    """The type of a value, and of what is in it; whole numbers pass for real ones, NaN and infinity for neither."""
    if isinstance(value, list):
        return ("list", *{shape(item) for item in value})
    if isinstance(value, dict):
        return ("dict", *{shape(item) for item in value.values()})
    return "strange" if type(value) is float and not math.isfinite(value) else type(value)


def right(value: object, good: object) -> bool:
    alike = {repr(shape(value)), repr(shape(value)).replace("'int'", "'float'")}
    return repr(shape(good)) in alike


@pytest.mark.parametrize("kind", [EncoderConfig, ForeignConfig])
def test_every_setting_of_another_type_is_named(folder: Path, kind: type) -> None:
    good = json.loads((folder / "config.json").read_text())
    if kind is ForeignConfig:
        good["encoder"] = asdict(
            ForeignConfig(
                backbone="torchvision:resnet18", width=512, size=32, latent=0, features=["backbone"], length=512
            )
        )
    asked = 0
    for field in fields(kind):
        for value in OTHERS:
            if right(value, good["encoder"][field.name]):
                continue
            content = {**good, "encoder": {**good["encoder"], field.name: value}}
            (folder / "config.json").write_text(json.dumps(content))
            with pytest.raises(InputError, match=rf"{field.name}|backbone"):
                load_encoder(folder)
            asked += 1
    assert asked > 80


@pytest.mark.parametrize(
    "setting",
    [{"channel_mean": [float("nan")]}, {"channel_std": [0.0]}, {"channel_mean": [0.1, 0.2]}, {"features": ["latent"]},
     {"polarity": "dark"}],
)  # fmt: skip
def test_foreign_settings_out_of_range_are_refused(setting: dict) -> None:
    config = ForeignConfig(backbone="torchvision:resnet18", features=["backbone"], latent=0, length=512)
    with pytest.raises(InputError, match=next(iter(setting))):
        replace(config, **setting).check()


@pytest.mark.parametrize("name", ["pretrained", "run"])
@pytest.mark.parametrize("defaults", ["meta", "default device", "float64", "bfloat16"])
def test_what_is_loaded_does_not_depend_on_torchs_defaults(folder: Path, defaults: str, name: str) -> None:
    source = str(folder) if name == "run" else "guided-vae-omniglot"
    expected = load_encoder(source)
    before = torch.get_default_dtype()
    try:
        if defaults == "meta":
            with torch.device("meta"):
                loaded = load_encoder(source)
        elif defaults == "default device":
            torch.set_default_device("meta")
            loaded = load_encoder(source)
            assert torch.empty(1).is_meta  # the caller's choice is back
        else:
            torch.set_default_dtype(getattr(torch, defaults))
            loaded = load_encoder(source)
            assert torch.empty(1).dtype == getattr(torch, defaults)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(before)
    images = torch.rand(2, 1, expected.config.size, expected.config.size)
    assert torch.equal(loaded(images), expected(images))


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
    with pytest.raises(InputError, match=r"(?s)received \[3\], needed \[8, 1, 3, 3\].*unexpected: 1.*extra"):
        import_weights(tmp_path / "w.safetensors", settings(tmp_path), tmp_path / "out", {}, False, False)
    assert not (tmp_path / "out").exists()


def test_code_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": Payload(marker)}, tmp_path / "evil.pt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps(Payload(marker)))
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(InputError, match="Nothing in it was run"):
            read_state_dicts(tmp_path / name)
    assert not marker.exists()


def test_prefixes_that_collide_are_refused() -> None:
    with pytest.raises(InputError, match="two weights"):
        renamed({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, {"a.": "", "b.": ""})


def test_import_metagvae_is_light() -> None:
    code = (
        "import sys, metagvae; metagvae.load_encoder; import metagvae.cli; "
        "heavy = ('learn2learn', 'gym', 'matplotlib', 'gradio', 'sklearn', 'tensorboard', 'scipy', 'numba');"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
