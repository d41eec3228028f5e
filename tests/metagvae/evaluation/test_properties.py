"""Properties of learners, encoders and configs, over shapes and values that Hypothesis chooses."""

from __future__ import annotations

import dataclasses
import tempfile
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from episodes import InputError
from episodes.untrusted.torch_files import load_torch
from metagvae.cli.commands import CONFIGURED
from metagvae.cli.parser import build_parser
from metagvae.config.parse import section
from metagvae.config.sections import to_dict
from metagvae.encoders.backbones import BACKBONES
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.norm import POLICIES
from metagvae.learners import LEARNERS, Learner
from metagvae.runs.run import read_config
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import load_encoder, read_card
from tests.support.small_learners import build

# the same cases on every machine and in every run: a test that fails now and then says nothing
fixed = settings(max_examples=25, deadline=None, derandomize=True)
few = settings(fixed, max_examples=8)
INDUCTIVE = [policy for policy in POLICIES if policy != "transductive"]


@st.composite
def episodes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Support ``[T, N, K, 1, 16, 16]``, query ``[T, N, Q, 1, 16, 16]`` and a seed; ways differ in brightness."""
    tasks, way, shot, query = (draw(st.integers(*span)) for span in ((1, 3), (2, 5), (1, 4), (1, 4)))
    seed = draw(st.integers(0, 2**32))
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(tasks, way, 1, 1, 16, 16, generator=generator)
    pictures = means + 0.3 * torch.rand(tasks, way, shot + query, 1, 16, 16, generator=generator)
    return pictures[:, :, :shot], pictures[:, :, shot:], seed


@torch.no_grad()
def ask(learner: Learner, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Logits ``[T, N, Q, N]``."""
    logits = learner.predict(learner.adapt(support), query)
    return logits.unflatten(1, query.shape[1:3])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LEARNERS)
@few
@given(episodes())
def test_permuting_the_ways_permutes_the_logits(name: str, policy: str, drawn) -> None:
    support, query, seed = drawn
    learner = build(name, policy, way=support.shape[1], width=4, passes=5).eval()
    order = torch.randperm(support.shape[1], generator=torch.Generator().manual_seed(seed))
    if hasattr(learner, "head"):  # a head of its own rows is permuted along
        before = ask(learner, support, query)
        learner.head.weight.data, learner.head.bias.data = (
            learner.head.weight.data[order],
            learner.head.bias.data[order],
        )
    else:
        before = ask(learner, support, query)
    after = ask(learner, support[:, order], query[:, order])
    assert close(before[:, order][..., order], after)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LEARNERS)
@few
@given(episodes())
def test_the_order_of_the_support_within_a_class_changes_nothing(name: str, policy: str, drawn) -> None:
    support, query, seed = drawn
    learner = build(name, policy, way=support.shape[1], width=4, passes=5).eval()
    order = torch.randperm(support.shape[2], generator=torch.Generator().manual_seed(seed))
    assert close(ask(learner, support, query), ask(learner, support[:, :, order], query))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LEARNERS)
@few
@given(episodes())
def test_a_querys_logits_follow_it_and_ignore_the_others_unless_transductive(name: str, policy: str, drawn) -> None:
    support, query, seed = drawn
    learner = build(name, policy, way=support.shape[1], width=4, passes=5).eval()
    assert learner.transductive == (policy == "transductive" or learner.sees_queries)
    whole = ask(learner, support, query)
    order = torch.randperm(query.shape[2], generator=torch.Generator().manual_seed(seed))
    assert close(whole[:, :, order], ask(learner, support, query[:, :, order]))  # even a transductive one
    if not learner.transductive:
        assert close(whole[:, :, :1], ask(learner, support, query[:, :, :1]))
        changed = torch.cat([query[:, :, :1], 1 - query[:, :, 1:]], 2)
        assert close(whole[:, :, :1], ask(learner, support, changed)[:, :, :1])


@st.composite
def encoder_configs(draw: st.DrawFn) -> EncoderConfig:
    latent = draw(st.integers(1, 12))
    names = draw(
        st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=3, unique=True)
    )
    names = [name for name in names if name not in ("latent", "backbone")] or ["content"]
    owners = [draw(st.sampled_from(names)) for _ in range(latent)]
    units = {name: [unit for unit, owner in enumerate(owners) if owner == name] for name in names}
    features = draw(st.lists(st.sampled_from(["latent", "backbone", *names]), min_size=1, unique=True))
    return EncoderConfig(
        backbone=draw(st.sampled_from(sorted(BACKBONES))),
        width=draw(st.sampled_from([1, 2, 3, 4, 8])),
        channels=draw(st.sampled_from([1, 3])),
        size=draw(st.integers(24, 28)),
        polarity=draw(st.sampled_from(["ink", "light"])),
        mean=draw(st.floats(-1, 1)),
        std=draw(st.floats(0.1, 2)),
        latent=latent,
        norm=draw(st.sampled_from(POLICIES)),
        units=units,
        features=features,
    )


@fixed
@given(encoder_configs(), st.integers(0, 2**32))
def test_an_encoder_comes_back_from_disk_as_it_was(config: EncoderConfig, seed: int) -> None:
    torch.manual_seed(seed)
    encoder = Encoder(config).eval()
    with tempfile.TemporaryDirectory() as name:
        save_encoder(encoder, name, EncoderCard(name="x", details={"seed": seed}))
        loaded, card = load_encoder(name), read_card(name)
        torch.save(encoder.state_dict(), Path(name) / "state.pt")
        state = load_torch(Path(name) / "state.pt")
    assert loaded.config == encoder.config
    assert card == EncoderCard(name="x", details={"seed": seed})
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
        assert torch.equal(value, state[key])
    pictures = torch.rand(2, config.channels, config.size, config.size)
    assert torch.equal(encoder(pictures), loaded(pictures))
    assert loaded(pictures).shape == (2, encoder.feature_size)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(fixed, max_examples=100)
@given(PLAIN)
def test_plain_values_come_back_from_a_torch_file(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        torch.save(content, Path(name) / "x.pt")
        assert load_torch(Path(name) / "x.pt") == content


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a config field's type."""
    # letters: the command line's library reads a lone "#" as nothing
    text = st.text(st.characters(codec="utf-8", categories=("L",)), max_size=6)
    plain = {
        bool: st.booleans(),
        int: st.integers(1, 2**62),
        float: st.floats(1e-6, 1e6),
        str: text,
        type(None): st.none(),
    }
    if hint in plain:
        return plain[hint]
    if dataclasses.is_dataclass(hint):
        return st.fixed_dictionaries({}, optional=sections_of(hint))
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return st.lists(values_of(inside[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(
            st.sampled_from(["a", "b", "c"]),
            st.integers(-(2**62), 2**62) | st.booleans() | st.floats(-9, 9),
            max_size=2,
        )
    if origin is not None and inside:
        return st.one_of(*map(values_of, inside))
    return st.none()


# what the sections themselves restrict; some settings go only with others, so those that go with all stand here
CHOICES = {
    "mode": ["finetune", "guided"],
    "schedule": ["cosine", "halving", "constant"],
    "precision": ["auto", "float32", "bfloat16"],
    "graph": ["auto", "on", "off"],
    "dictionary": [None, {"atoms": 64, "rule": "local", "pool": "mean"}],
    "adversary": [None, {"contrast": 2.0, "start": 0.5, "generator_rate": 4.0}],
    "classes": ["labels", "pictures"],
    "views": [1],
    "vae_share": [0.25, 1.0],
    "within": [None],
    "class_warp": [None, {"rotation": 10.0, "scale": 0.5, "shear": 0.0, "flip": 0.5}],
}


def sections_of(kind: type) -> dict[str, st.SearchStrategy[Any]]:
    hints = typing.get_type_hints(kind)
    return {
        f.name: st.sampled_from(CHOICES[f.name]) if f.name in CHOICES else values_of(hints[f.name])
        for f in dataclasses.fields(kind)
        if f.name not in ("folder", "resume", "augment")
    }


PARSER = build_parser()


@pytest.mark.parametrize("command", ["pretrain", "train"])
@settings(fixed, max_examples=30)
@given(st.data())
def test_a_config_goes_from_yaml_to_dataclasses_and_back(command: str, data: st.DataObject) -> None:
    kind = CONFIGURED[command][0]
    given_values = data.draw(st.fixed_dictionaries({}, optional=sections_of(kind)))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "given.yaml"
        path.write_text(yaml.safe_dump(given_values, allow_unicode=True), encoding="utf-8")

        def parsed() -> Any:
            values = vars(PARSER.instantiate(PARSER.parse_args([command, "--config", str(path)]))[command])
            return kind(**{key: value for key, value in values.items() if key != "config"})

        try:
            config = parsed()
        except InputError:  # settings that are refused together; tests of their own name them
            reject()
        plain = to_dict(config)
        for key, value in given_values.items():  # what was given is what came
            if not isinstance(value, dict) or not dataclasses.is_dataclass(getattr(config, key)):
                assert plain[key] == value
            else:
                assert {inner: plain[key][inner] for inner in value} == value
        path.write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
        assert parsed() == config
        # and as a run folder holds it
        content = yaml.safe_dump({"kind": command, **plain}, sort_keys=False, allow_unicode=True)
        (Path(name) / "config.yaml").write_text(content, encoding="utf-8")
        read = read_config(name)
        assert read == {"kind": command, **plain}
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(getattr(config, field.name)):
                assert section(type(getattr(config, field.name)), read, field.name, name) == getattr(config, field.name)
