"""Networks of timm and torchvision, and the Hub, offline: weights as initialised, a client that reads disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import metagvae
from episodes import InputError
from metagvae.encoders import external, foreign_networks
from metagvae.encoders.encoder import Encoder, EncoderConfig
from metagvae.encoders.external import ForeignEncoder, describe_foreign, load_foreign
from metagvae.encoders.norm import norm_policy
from metagvae.studies.compare import compare
from metagvae.studies.methods import describe
from metagvae.studies.protocol import Protocol
from metagvae.zoo import hub
from metagvae.zoo.card import EncoderCard
from metagvae.zoo.leakage import refuse_trained_classes
from metagvae.zoo.load import save_encoder
from metagvae.zoo.trained import load_encoder, read_card
from tests.support.banks import stripes

try:
    import timm
except ImportError:
    timm = None
try:
    import huggingface_hub
except ImportError:
    huggingface_hub = None
needs_timm = pytest.mark.skipif(timm is None, reason="timm is not installed: pip install metagvae[encoders]")
needs_hub = pytest.mark.skipif(huggingface_hub is None, reason="huggingface_hub is not installed")
SOURCES = [
    "torchvision:squeezenet1_0",
    "torchvision:mobilenet_v3_small",
    "torchvision:resnet18",
    pytest.param("timm:resnet10t", marks=needs_timm),
    pytest.param("timm:test_vit", marks=needs_timm),
]


@pytest.mark.parametrize("source", SOURCES[1:])
def test_networks_of_other_packages_are_encoders(source: str, tmp_path: Path) -> None:
    encoder = load_foreign(source, pretrained=False)
    assert not encoder.training
    with torch.no_grad():
        out = encoder(torch.rand(2, 1, 28, 28))
        assert out.shape == (2, encoder.feature_size)
        big = torch.rand(1, 3, encoder.config.size, encoder.config.size)
        plain = encoder.network((big - encoder.mean) / encoder.std).flatten(1)
        torch.testing.assert_close(encoder(big), plain)
    save_encoder(encoder, tmp_path / "enc", EncoderCard(name="mine"))
    again = load_encoder(tmp_path / "enc")
    assert isinstance(again, ForeignEncoder)
    with torch.no_grad():
        torch.testing.assert_close(again(big), plain)


def test_what_cannot_be_an_encoder_says_why() -> None:
    for source, message in (
        ("torchvision:nothing", "list_models"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classifier named"),
        (SOURCES[0], "does not end in a linear layer"),
    ):
        with pytest.raises(InputError, match=message):
            load_encoder(source)
    encoder = load_foreign("torchvision:mobilenet_v3_small", pretrained=False)
    with pytest.raises(InputError, match="no latent"):
        encoder.features = ["latent"]
    with pytest.raises(InputError, match="no latent"):
        encoder.posterior(torch.rand(1, 3, 64, 64))
    with pytest.raises(InputError, match="received"):
        encoder(torch.rand(1, 2, 64, 64))


@pytest.mark.parametrize("change", [{"length": 0}, {"channel_std": [0, 1, 1]}, {"backbone": "os:system"},
                                    {"backbone": "timm:hf_hub:x/y"}, {"size": 10**6}])  # fmt: skip
@needs_timm
def test_a_forged_config_builds_nothing(change: dict, tmp_path: Path) -> None:
    save_encoder(load_foreign("torchvision:mobilenet_v3_small", pretrained=False), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["encoder"].update(change)
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        load_encoder(tmp_path)


def test_cards_say_what_weights_have_seen() -> None:
    card = read_card("torchvision:resnet18")
    assert card.trained_on == "ImageNet"
    assert len(card.trained_classes["miniimagenet"]) == 100
    assert describe("torchvision:resnet18")["method"].endswith("IMAGENET1K_V1")
    _, about = describe_foreign("torchvision:resnet18")
    assert "IMAGENET1K_V1" in about["weights"]
    bank = stripes()
    seen = card.trained_classes["miniimagenet"][: bank.num_classes]
    imagenet = type(bank)(bank.images, bank.offsets, tuple(seen), dataset="miniimagenet", split="test")
    with pytest.raises(InputError, match="were trained on by"):
        refuse_trained_classes("torchvision:resnet18", imagenet)


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(InputError, match=r"cannot be fetched \(OSError: no network"):
        load_encoder("torchvision:resnet18")


def test_torchvisions_weights_are_read_from_its_cache_with_weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    torch.manual_seed(3)
    theirs, asked = models.mobilenet_v3_small().eval(), {}

    def cached(url: str, **options: object) -> dict:
        asked.update(options)
        return theirs.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", cached)
    encoder = load_encoder("torchvision:mobilenet_v3_small")
    assert asked["weights_only"] is True
    x = torch.rand(2, 3, 224, 224)
    theirs.classifier[-1] = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), theirs((x - encoder.mean) / encoder.std))


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A network as torchvision's own constructor makes it of its default weights; these are random, not fetched."""
    from torchvision import models

    torch.manual_seed(3)
    whole = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    weights = models.get_model_weights(name).DEFAULT
    tensors = models.get_model(name, weights=None, **whole).state_dict()
    if name.startswith("densenet"):  # as in torchvision's files
        kept = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
        tensors = {re.sub(r"(layer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in kept.items()}
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(tensors))
    return models.get_model(name, weights=weights).eval()


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "regnet_x_400mf", "densenet121", "mobilenet_v2"])
def test_features_are_those_of_torchvisions_own_constructor(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = stand_in(name, monkeypatch)
    encoder = load_encoder(f"torchvision:{name}")
    save_encoder(encoder, tmp_path / "saved")
    last = "fc" if hasattr(theirs, "fc") else "classifier"
    setattr(theirs, last, torch.nn.Identity() if last == "fc" or name.startswith("dense") else theirs.classifier[:-1])
    x = torch.rand(2, 3, encoder.config.size, encoder.config.size)
    with torch.no_grad():
        expected = theirs((x - encoder.mean) / encoder.std)
        assert expected.abs().max() > 0
        for ours in (encoder, load_encoder(tmp_path / "saved")):
            torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_with_further_classifiers_is_trained_like_any(name: str) -> None:
    """torchvision's gives three answers in training; folders of before hold the weights of all."""
    from torchvision import models

    encoder = load_foreign(f"torchvision:{name}", pretrained=False)
    assert encoder.train()(torch.rand(2, 3, 64, 64)).shape == (2, encoder.feature_size)
    earlier = models.get_model(name, weights=None, init_weights=False).state_dict()
    assert set(encoder.network.state_dict()) == {key for key in earlier if not key.startswith("fc.")}


def built_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares a network with that of torchvision's own constructor, given weights, without their values."""
    from torchvision import models

    config, _ = describe_foreign(f"torchvision:{name}")
    with monkeypatch.context() as patched, torch.device("meta"), foreign_networks._CountsOnCpu():
        patched.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        theirs = models.get_model(name, weights=models.get_model_weights(name).DEFAULT)
        ours = foreign_networks.network_of(f"torchvision:{name}")
    needed = {key: value.shape for key, value in theirs.state_dict().items()}
    lost = {key for key in needed if needed[key] != getattr(ours.state_dict().get(key), "shape", None)}
    assert {key.rpartition(".")[0] for key in lost} == {list(needed)[-1].rpartition(".")[0]}, "all but the classifier"
    plain = {key: value for key, value in vars(theirs).items() if isinstance(value, (bool, int, float, str))}
    if "aux_logits" in plain:
        plain["aux_logits"] = False
    assert {key: vars(ours)[key] for key in plain} == plain
    assert config.length >= 1


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "regnet_y_400mf", "vit_h_14", "maxvit_t"])
def test_networks_are_built_as_torchvisions_weights_need_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built_alike(name, monkeypatch)


@pytest.mark.slow
def test_every_network_of_torchvision_is_an_encoder_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    for name in models.list_models(module=models):
        if name.startswith("squeezenet"):
            with pytest.raises(InputError, match="does not end in a linear layer"):
                describe_foreign(f"torchvision:{name}")
        else:
            built_alike(name, monkeypatch)


def test_a_sketch_of_a_large_network_holds_no_numbers() -> None:
    sketch = external.sketch_foreign("torchvision:regnet_y_128gf")
    assert sum(value.numel() for value in sketch.values()) > 6e8
    assert all(value.is_meta for value in sketch.values())


def test_what_another_package_raises_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("torchvision.models.get_model", refuse)
    for ask in (describe_foreign, external.sketch_foreign, load_foreign):
        with pytest.raises(InputError, match=r"torchvision:resnet18 cannot be built as an encoder \(AssertionError"):
            ask("torchvision:resnet18")


def test_all_kinds_in_one_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shipped, folder, torchvision and a control on the same episodes of the same pictures."""
    torch.manual_seed(0)
    theirs = load_foreign("torchvision:mobilenet_v3_small", pretrained=False)
    theirs.config.size = 32
    save_encoder(theirs, tmp_path / "theirs")
    names = ["pixels", "guided-vae-omniglot", str(tmp_path / "theirs")]
    from episodes.datasets import make_dataset

    table = compare(make_dataset("digits"), names, protocol=Protocol(episodes=2, query=1)).table()
    assert all(name in table for name in ("pixels", "guided-vae-omniglot", "theirs"))
    assert norm_policy(load_encoder(tmp_path / "theirs")) == "running"


def test_a_classifier_on_a_foreign_encoder(tmp_path: Path) -> None:
    encoder = load_foreign("torchvision:mobilenet_v3_small", pretrained=False)
    rng = np.random.default_rng(0)
    colours = np.array([[220, 30, 30], [30, 30, 220]])
    X = np.clip(colours[[0, 1] * 4][:, None, None] + rng.normal(0, 20, (8, 40, 50, 3)), 0, 255).astype(np.uint8)
    y = np.array(["red", "blue"] * 4)
    classifier = metagvae.FewShotClassifier(encoder).fit(X[:4], y[:4])
    assert classifier.score(X[4:], y[4:]) == 1
    classifier.save(tmp_path / "saved")
    again = metagvae.FewShotClassifier.load(tmp_path / "saved")
    np.testing.assert_allclose(again.predict_proba(X), classifier.predict_proba(X), rtol=1e-4, atol=1e-6)


class DiskHub:
    """The Hub's client, its repositories folders on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        client = self

        class HfApi:
            def __init__(self, token: str | None = None) -> None: ...

            def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
                (client.root / name).mkdir(parents=True, exist_ok=exist_ok)

            def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> str:
                shutil.copytree(folder_path, client.root / repo_id, dirs_exist_ok=True)
                return f"https://example.org/{repo_id}"

        self.HfApi = HfApi

    def hf_hub_download(self, name: str, file: str, revision: str | None) -> str:
        path = self.root / name / file
        if not path.is_file():
            raise FileNotFoundError(f"404: {name}/{file}")
        return str(path)


@pytest.fixture
def disk_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskHub:
    client = DiskHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "_client", lambda: client)
    return client


def test_to_the_hub_and_back(disk_hub: DiskHub) -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=8, latent=5, units={"geometry": [0, 1], "content": [2, 3, 4]})).eval()
    card = EncoderCard(name="mine", trained_on="stripes", method="a VAE", licence="MIT")
    assert hub.push_to_hub(encoder, "me/mine", card).endswith("me/mine")
    assert sorted(p.name for p in (disk_hub.root / "me/mine").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    text = (disk_hub.root / "me/mine/README.md").read_text()
    assert text.startswith("---\nlibrary_name: metagvae\nlicense: mit\n")
    assert 'load_encoder("hub:me/mine")' in text
    x = torch.rand(2, 1, 28, 28)
    for again in (load_encoder("hub:me/mine"), load_encoder("hub:me/mine@main")):
        assert torch.equal(again(x), encoder(x))
    assert read_card("hub:me/mine") == card
    assert load_encoder("guided-vae-omniglot").config.latent == 32
    with pytest.raises(InputError, match="hub:me/nothing cannot be fetched"):
        load_encoder("hub:me/nothing")


@needs_timm
def test_a_timm_repository_on_the_hub(disk_hub: DiskHub) -> None:
    from safetensors.torch import save_file

    network = timm.create_model("test_vit", pretrained=False, num_classes=7).eval()
    folder = disk_hub.root / "them/vit"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 7}))
    save_file(network.state_dict(), folder / "model.safetensors")
    encoder = load_encoder("hub:them/vit")
    x = torch.rand(2, 3, encoder.config.size, encoder.config.size)
    with torch.no_grad():
        network.reset_classifier(0)
        torch.testing.assert_close(encoder(x), network((x - encoder.mean) / encoder.std))
    assert read_card("hub:them/vit").name == "timm:test_vit"


@needs_timm
def test_a_tag_that_timm_does_not_know() -> None:
    with pytest.raises(InputError, match="timm has no weights named 'test_vit"):
        load_encoder("timm:test_vit.mine")


@needs_timm
@pytest.mark.parametrize(
    "architecture", ["vit_7b_patch16_dinov3", "tf_efficientnet_l2", "test_vit", "test_vit.x", "x" * 10_000, ""]
)
@pytest.mark.parametrize("weights", [{"a": torch.zeros(1)}, {}, {"head.weight": torch.zeros(2)}])
def test_a_forged_timm_folder_builds_nothing(
    architecture: str, weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest network known, and weights of one number: refused by a sketch, before anything is allocated."""
    from safetensors.torch import save_file

    def built(*_: object) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr(external.ForeignEncoder, "__init__", built)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    save_file(weights, tmp_path / "model.safetensors")
    source = hub.timm_architecture(tmp_path)
    assert source is not None
    with pytest.raises(InputError) as raised:
        hub.load_timm_folder(tmp_path, source)
    assert len(str(raised.value)) < 2000


@needs_hub
def test_the_real_client_has_what_is_called() -> None:
    client = hub._client()
    assert callable(client.hf_hub_download)
    assert callable(client.HfApi.upload_folder)
    assert callable(client.HfApi.create_repo)
