"""Weights of another code base: which state dict is meant, and advice that works when it is followed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from episodes import InputError
from metagvae.cli.main import main
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.zoo.convert import import_weights
from metagvae.zoo.state_dicts import read_state_dicts
from metagvae.zoo.trained import load_encoder

CONFIG = {"width": 8, "latent": 5}


def source(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig(**CONFIG)).eval()
    for name, value in encoder.state_dict().items():  # as trained ones: no two alike
        value.copy_(torch.rand_like(value) + ("running_var" in name))
    return encoder


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def run(tmp_path: Path, content: object, **options: object) -> str:
    """The report of an import of a file that `torch.save` wrote."""
    (tmp_path / "settings.yaml").write_text(json.dumps(CONFIG))
    torch.save(content, tmp_path / "w.pt")
    names = {"prefixes": {}, "dry_run": False, "allow_missing_latent": False, **options}
    return import_weights(tmp_path / "w.pt", tmp_path / "settings.yaml", tmp_path / "out", **names)


def same(tmp_path: Path, encoder: Encoder) -> bool:
    loaded, images = load_encoder(tmp_path / "out"), torch.rand(3, 1, 28, 28)
    return torch.equal(loaded(images), encoder(images))


OPTIMISER = {
    "state": {0: {"exp_avg": torch.ones(8, 1, 3, 3), "step": torch.tensor(3.0)}},
    "param_groups": [{"lr": 0.1}],
}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"epoch": torch.tensor(3), "state_dict": w},
        lambda w: {"epoch": torch.tensor([3]), "loss": torch.rand(4), "state_dict": w},
        lambda w: {"model_state_dict": w, "optimizer_state_dict": OPTIMISER, "epoch": 5, "loss": torch.tensor(0.1)},
        lambda w: {"anything": {"deeper": {"network": w}}, "scheduler": {"last": 3}},
        lambda w: {"encoder": w, "decoder": {"first.weight": torch.rand(7, 5), "first.bias": torch.rand(7)}},
        lambda w: {"model": w, "state_dict": w},  # one under two names
    ],
)
def test_the_one_state_dict_is_found_under_any_key(tmp_path: Path, wrap) -> None:
    encoder = source()
    run(tmp_path, wrap(dict(encoder.state_dict())))
    assert same(tmp_path, encoder)


@pytest.mark.parametrize(
    ("one", "other"), [("model", "model_ema"), ("state_dict", "ema_state_dict"), ("nets.student", "nets.teacher")]
)
def test_two_that_fit_are_named_and_none_is_taken(tmp_path: Path, one: str, other: str) -> None:
    first, second = source(0), source(1)
    content: dict = {"epoch": 3}
    for name, encoder in ((one, first), (other, second)):
        *outer, last = name.split(".")
        inner = content
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = dict(encoder.state_dict())
    with pytest.raises(InputError, match=rf"--key {one} or --key {other}"):
        run(tmp_path, content)
    assert not (tmp_path / "out").exists()
    report = run(tmp_path, content, key=other)
    assert f"state dict: {other}\nleft aside: {one}" in report
    assert same(tmp_path, second)


def test_the_others_are_named_where_only_one_fits(tmp_path: Path) -> None:
    encoder = source()
    content = {"net": dict(encoder.state_dict()), "critic": {"a": torch.rand(3)}, "critic_target": {"a": torch.rand(3)}}
    report = run(tmp_path, content)
    assert "state dict: net\nleft aside: critic, critic_target" in report
    assert same(tmp_path, encoder)


def test_a_key_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no state dict 'ema'; it holds model \(\d+ tensors\)"):
        run(tmp_path, {"model": dict(source().state_dict())}, key="ema")


@pytest.mark.parametrize(
    "change",
    [
        lambda w: prefixed("module.", w),
        lambda w: prefixed("_orig_mod.", w),
        lambda w: prefixed("module._orig_mod.", w),
        lambda w: {**w, "fc.weight": torch.rand(10, 5), "fc.bias": torch.rand(10)},
        lambda w: {**prefixed("module.", w), "module.fc.weight": torch.rand(10, 5), "head[0].w": torch.rand(2)},
        lambda w: {**prefixed("encoder.", w), "decoder.first.weight": torch.rand(4, 4), "temperature": torch.rand(1)},
        lambda w: {**w, "backbone.blocks.4.0.weight": torch.rand(8, 8, 3, 3)},
        lambda w: {n.removeprefix("backbone."): v for n, v in w.items() if n.startswith("backbone.")},
        lambda w: {n.replace("backbone.blocks.", "features."): v for n, v in w.items() if n.startswith("backbone.")},
        lambda w: {n: v for n, v in w.items() if not n.startswith("to_")},
    ],
)
def test_advice_works_when_it_is_followed(
    tmp_path: Path, change, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = source()
    Path("settings.yaml").write_text(json.dumps(CONFIG))
    torch.save({"epoch": torch.tensor(3), "state_dict": change(dict(encoder.state_dict()))}, "w.pt")
    command = ["import-encoder", "w.pt", "settings.yaml", "--out", "out"]
    assert main(command) == 2
    said = capsys.readouterr()
    line = next(line for line in (said.out + said.err).splitlines() if "hey fit with" in line)
    offered = line.partition("hey fit with ")[2].partition(". Otherwise")[0]
    assert main([*command, *shlex.split(offered)]) == 0
    if "latent" in offered:
        images = torch.rand(3, 1, 28, 28)
        assert torch.equal(load_encoder("out")(images), encoder.maps(images))
    else:
        assert same(tmp_path, encoder)


def test_two_sets_under_two_prefixes_of_one_state_dict_are_both_offered(tmp_path: Path) -> None:
    one, other = source(0), source(1)
    content = {**prefixed("model.", dict(one.state_dict())), **prefixed("model_ema.", dict(other.state_dict()))}
    with pytest.raises(InputError) as raised:
        run(tmp_path, content)
    for kept, dropped in (("model.", "model_ema."), ("model_ema.", "model.")):
        assert f"--prefix '{{\"{kept}\": \"\"}}' --drop '{dropped}*'" in str(raised.value)
    run(tmp_path, content, prefixes={"model_ema.": ""}, drop=["model.*"])
    assert same(tmp_path, other)


@pytest.mark.parametrize("option", [{"prefixes": {"modul.": ""}}, {"drop": ["fc*"]}])
def test_options_that_match_nothing_are_refused(tmp_path: Path, option: dict) -> None:
    with pytest.raises(InputError, match="matches none of the"):
        run(tmp_path, dict(source().state_dict()), **option)


@pytest.mark.parametrize("dry_run", [False, True])
def test_integers_are_no_weights(tmp_path: Path, dry_run: bool) -> None:
    tensors = {name: (100 * value).long() for name, value in source().state_dict().items()}
    with pytest.raises(InputError, match=r"no floating point numbers.*torch\.int64.*were quantised") as raised:
        run(tmp_path, tensors, dry_run=dry_run)
    assert "import-encoder" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_numbers_that_float32_cannot_hold_are_refused(tmp_path: Path) -> None:
    tensors = {name: value.double() * 1e200 for name, value in source().state_dict().items()}
    with pytest.raises(InputError, match=r"too large for torch\.float32.*at most 3\.4e\+38"):
        run(tmp_path, tensors)
    assert not (tmp_path / "out").exists()
    run(tmp_path, {name: value.double() for name, value in source().state_dict().items()})
    assert same(tmp_path, source())


def test_files_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "settings.yaml").write_text(json.dumps(CONFIG))
    torch.save(source().state_dict(), tmp_path / "w.pt")
    assert main(["import-encoder", "~/w.pt", "~/settings.yaml", "--out", "~/out"]) == 0
    assert same(tmp_path, source())


def test_a_torchscript_program_is_called_so(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"holds a TorchScript program.*Save its state_dict\(\) alone"):
        read_state_dicts(tmp_path / "w.pt")


def test_needed_weights_cannot_be_dropped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)missing: 5.*They fit without --prefix and --drop"):
        run(tmp_path, dict(source().state_dict()), drop=["backbone.blocks.0.*"])


@pytest.mark.parametrize("name", ["w.bin", "w", "w.pt", "w.ckpt", "w.safetensors"])
@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_content_and_not_the_suffix_says_what_a_file_is(tmp_path: Path, kind: str, name: str) -> None:
    tensors = dict(source().state_dict())
    save_file(tensors, tmp_path / name) if kind == "safetensors" else torch.save(tensors, tmp_path / name)
    found = read_state_dicts(tmp_path / name)[""]
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("data", [b"", b"PK", b"hello world, no weights", b"\x10\0\0\0\0\0\0\0{", b"PK\x03\x04aaaa{"])
def test_files_of_neither_kind_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"w\.bin"):
        read_state_dicts(tmp_path / "w.bin")
