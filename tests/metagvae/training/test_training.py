"""The two loops, end to end on small data: resume, best state, what stays frozen, what is refused early."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from episodes import (
    AugmentConfig,
    CaptureConfig,
    ClassWarp,
    EpisodeBatch,
    Episodes,
    EpisodeSampler,
    EpisodeShape,
    Factors,
    ImageBank,
    InputError,
    make_batch,
)
from episodes.shape import Within
from metagvae import zoo
from metagvae.compute.device import Device
from metagvae.config.episodes import EpisodeSection, ValidationSection
from metagvae.config.optimisation import OptimSection
from metagvae.config.parse import from_dict
from metagvae.config.sections import DataConfig, EncoderSection, LearnerSection, PretrainConfig, TrainConfig, VAESection
from metagvae.config.teacher import TeacherSection
from metagvae.learners import make_learner
from metagvae.learners.base import FeatureLearner
from metagvae.runs.metrics_log import read_metrics
from metagvae.runs.run import read_config
from metagvae.runs.signals import Interrupted
from metagvae.storage.tensors import read_tensors
from metagvae.studies.compare import compare
from metagvae.studies.protocol import Protocol
from metagvae.training.episode_terms import EpisodeTerms, _vae_batch
from metagvae.training.episodic import train
from metagvae.training.loop import learning_rate
from metagvae.training.pretraining import Shuffle, pretrain
from metagvae.training.trainee import Parts
from metagvae.vae.guided_vae import GuidedVAE
from metagvae.zoo.trained import load_encoder
from tests.support.banks import drawn_by_hands, stripes
from tests.support.trainings import GUIDANCE, assert_same_run, bank, do_train, pretrain_config, train_config


def test_pretraining_stopped_at_three_places_ends_bit_identical(tmp_path: Path) -> None:
    pretrain(pretrain_config(tmp_path / "whole"), bank())
    stopped = tmp_path / "stopped"
    for number, place in enumerate((2, 5, 9)):
        with pytest.raises(Interrupted, match=f"after step {place} of 12"):
            pretrain(pretrain_config(stopped, stop_after=place, resume=number > 0), bank())
    pretrain(pretrain_config(stopped, resume=True), bank())
    assert_same_run(tmp_path / "whole", stopped, "vae.safetensors")


def test_beta_grows_over_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    losses = GuidedVAE.losses

    def noted(vae: GuidedVAE, images: Tensor, attributes: dict, warm_up: float, *others: object) -> dict[str, Tensor]:
        seen.append(warm_up)
        return losses(vae, images, attributes, warm_up, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(GuidedVAE, "losses", noted)
    pretrain(pretrain_config(tmp_path / "run", steps=7), bank())
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


CURED = {"inner_steps": 2, "second_order_from": 0.4, "rates": "learnt", "every_loss_until": 0.7, "head": "zero"}


@pytest.mark.parametrize(
    "learner",
    [
        *map(LearnerSection, ("prototypes", "ridge", "maml", "anil", "statistician")),
        LearnerSection("maml", CURED),
        LearnerSection("anil", CURED),
    ],
    ids=lambda section: section.name + ("-cured" if section.options else ""),
)
def test_training_stopped_at_three_places_ends_bit_identical(tmp_path: Path, learner: LearnerSection) -> None:
    do_train(train_config(tmp_path / "whole", learner=learner))
    stopped = tmp_path / "stopped"
    for number, place in enumerate((3, 6, 10)):
        with pytest.raises(Interrupted):
            do_train(train_config(stopped, learner=learner, run_stop_after=place, run_resume=number > 0))
    do_train(train_config(stopped, learner=learner, run_resume=True))
    assert_same_run(tmp_path / "whole", stopped, "learner.safetensors")


def test_running_statistics_resume_too(tmp_path: Path) -> None:
    encoder = EncoderSection(width=8, latent=8, features=["backbone"])
    do_train(train_config(tmp_path / "whole", encoder=encoder))
    with pytest.raises(Interrupted):
        do_train(train_config(tmp_path / "stopped", encoder=encoder, run_stop_after=7))
    do_train(train_config(tmp_path / "stopped", encoder=encoder, run_resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "learner.safetensors")


def test_a_crash_between_states_goes_on_from_the_older_one(tmp_path: Path) -> None:
    do_train(train_config(tmp_path / "whole"))
    crashed = tmp_path / "crashed"
    with pytest.raises(Interrupted):
        do_train(train_config(crashed, run_stop_after=7))
    # lines that a launch wrote after its last state, the last one cut short
    with (crashed / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 9, "loss": 1.0}) + '\n{"step": 12, "lo')
    do_train(train_config(crashed, run_resume=True))
    assert_same_run(tmp_path / "whole", crashed, "learner.safetensors")


def test_seeds_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        pretrain(pretrain_config(tmp_path / str(seed), seed=seed), bank())
    a, b = (read_tensors(tmp_path / str(seed) / "vae.safetensors") for seed in (0, 1))
    assert not any(torch.equal(a[key], b[key]) for key in a if key.endswith("weight") and a[key].ndim > 1)


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
    do_train(train_config(tmp_path / "run"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "events", "state", "encoder", "learner.safetensors", "best.json"}
    assert read_config(tmp_path / "run")["episodes"]["way"] == 3
    learner = zoo.open(tmp_path / "run").learner()
    encoder = load_encoder(tmp_path / "run")
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(learner.encoder(x), encoder(x))
    assert encoder.units == {"content": list(range(8))}


def test_the_best_state_by_validation_is_exported(tmp_path: Path) -> None:
    do_train(train_config(tmp_path / "run", optim=OptimSection(steps=12, lr=0.3, schedule="constant")))
    errors = {
        line["step"]: line["validation_error"] for line in read_metrics(tmp_path / "run") if "validation_error" in line
    }
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["validation_error"] == min(errors.values())
    assert best["step"] == min(step for step, error in errors.items() if error == min(errors.values()))


def test_pretrained_encoder_frozen_finetuned_and_guided(tmp_path: Path) -> None:
    pretrain(pretrain_config(tmp_path / "vae"), bank())
    before = read_tensors(tmp_path / "vae" / "encoder" / "model.safetensors")
    source = EncoderSection(source=str(tmp_path / "vae"), features=["content"])
    learner = LearnerSection("prototypes", {"distance": "cosine"})
    for mode in ("frozen", "finetune", "guided"):
        do_train(train_config(tmp_path / mode, encoder=source, mode=mode, learner=learner))
        after = read_tensors(tmp_path / mode / "encoder" / "model.safetensors")
        same = [torch.equal(before[key], after[key]) for key in before]
        assert all(same) if mode == "frozen" else not any(same[:3])
        terms = next(iter(read_metrics(tmp_path / mode)))
        assert ("vae/reconstruction" in terms) == (mode == "guided")
        assert ("vae/deformable_pca/reconstruction" in terms) == (mode == "guided")
    assert zoo.open(tmp_path / "vae").vae().encoder.units["geometry"] == [0]
    # a guided run is itself a source: a further round begins with its decoder and guidance
    first, again = (
        read_tensors(tmp_path / "guided" / "vae.safetensors"),
        zoo.open(tmp_path / "guided").vae().state_dict(),
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    round_two = EncoderSection(source=str(tmp_path / "guided"), features=["content"])
    do_train(train_config(tmp_path / "again", encoder=round_two, mode="guided"))
    assert "vae/deformable_pca/reconstruction" in next(iter(read_metrics(tmp_path / "again")))
    assert not (tmp_path / "finetune" / "vae.safetensors").exists()
    with pytest.raises(InputError, match="nothing to train"):
        do_train(train_config(tmp_path / "none", encoder=source, mode="frozen"))
    assert not (tmp_path / "none").exists()


def test_validation_on_classes_that_the_start_or_the_teacher_knows_is_refused(tmp_path: Path) -> None:
    """The best state by them would be the one that remembers them best."""
    known = str(tmp_path / "known")
    do_train(train_config(Path(known), 2, validation=ValidationSection(every=0)))
    held_out, run = replace(bank("validation"), split="validation"), tmp_path / "run"
    start = EncoderSection(source=known)
    for changes in ({"encoder": start}, {"teacher": TeacherSection([known])}):
        with pytest.raises(InputError, match=r"12 of the 12 classes .* by .*known, .*validation.every 0"):
            train(train_config(run, 2, **changes), bank(), held_out)
    assert not run.exists()
    train(train_config(run, 2, encoder=start, validation=ValidationSection(every=0)), bank(), held_out)


def test_guided_from_scratch(tmp_path: Path) -> None:
    vae = VAESection(guidance=GUIDANCE, decoder_width=4)
    do_train(train_config(tmp_path / "run", mode="guided", vae=vae))
    assert load_encoder(tmp_path / "run").units["third"] == [1, 2]


def test_episodes_of_pictures_never_see_a_label(tmp_path: Path) -> None:
    """The same run, every label and class border of the training pictures replaced: the same weights."""
    mixed = replace(bank(), offsets=torch.tensor([0, 40, 96]), class_names=("x", "y"), attributes={})
    shape = EpisodeSection(6, 1, 3, 1, classes="pictures")
    vae = VAESection(guidance=[{"name": "warp_pairs", "geometry": 2}], decoder_width=4)
    for name, pictures in (("one", bank()), ("other", mixed)):
        config = train_config(tmp_path / name, steps=4, episodes=shape, mode="guided", vae=vae)
        train(config, pictures, bank("validation"))
    a, b = (read_tensors(tmp_path / name / "learner.safetensors") for name in ("one", "other"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "vae/warp_pairs/content" in next(iter(read_metrics(tmp_path / "one")))
    with pytest.raises(InputError, match="'third', which the training pictures do not have"):
        do_train(train_config(tmp_path / "none", episodes=shape, mode="guided", vae=VAESection(guidance=GUIDANCE)))
    with pytest.raises(InputError, match="'pictures' or 'neighbours'"):
        EpisodeSection(classes="folders")


def test_a_class_of_an_episode_is_warped_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images of a class are mirrored or none is; a run stopped on the way ends bit-identical; a slip is refused."""
    bank, seen = stripes(), list[Tensor]()

    def forward(self: FeatureLearner, batch: EpisodeBatch) -> Any:
        seen.append(batch.images)
        return plain(self, batch)

    plain = FeatureLearner.forward
    monkeypatch.setattr(FeatureLearner, "forward", forward)
    shape = EpisodeSection(3, 1, 2, 2, class_warp=ClassWarp(flip=0.5))
    options: dict[str, Any] = {"augment": AugmentConfig(), "episodes": shape, "validation": ValidationSection(every=0)}
    with pytest.raises(Interrupted):
        train(train_config(tmp_path / "run", 6, run_stop_after=3, **options), bank)
    train(train_config(tmp_path / "run", 6, run_resume=True, **options), bank)
    upright = {image.numpy().tobytes() for image in bank.images}
    turned = []
    for images in seen:
        for one in images.flatten(0, 1):
            kinds = {(255 * image).round().to(torch.uint8).numpy().tobytes() in upright for image in one}
            assert len(kinds) == 1
            turned.append(not kinds.pop())
    assert 0 < sum(turned) < len(turned)
    train(train_config(tmp_path / "whole", 6, **options), bank)
    assert_same_run(tmp_path / "whole", tmp_path / "run", "learner.safetensors")


PAIRS = VAESection(guidance=[{"name": "warp_pairs", "geometry": 2}], decoder_width=4)


def test_episodes_of_neighbours_resume_and_need_an_encoder(tmp_path: Path) -> None:
    pretrain(pretrain_config(tmp_path / "vae"), bank())
    shape = EpisodeSection(6, 1, 3, 1, classes="neighbours", neighbours=2)
    source = EncoderSection(source=str(tmp_path / "vae"), features=["content"])
    do_train(train_config(tmp_path / "whole", episodes=shape, encoder=source))
    with pytest.raises(Interrupted):
        do_train(train_config(tmp_path / "stopped", episodes=shape, encoder=source, run_stop_after=7))
    do_train(train_config(tmp_path / "stopped", episodes=shape, encoder=source, run_resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "learner.safetensors")
    with pytest.raises(InputError, match="needs a trained encoder"):
        do_train(train_config(tmp_path / "none", episodes=shape))
    # neighbours are no warps of one picture
    batch = make_batch(bank(), EpisodeSection(6, 1, 3, 1).sampler(bank(), 0, "train", False).span(0, 1))
    for classes in ("pictures", "neighbours"):
        config = train_config(
            tmp_path / "none", mode="guided", encoder=source, episodes=replace(shape, classes=classes)
        )
        seen = _vae_batch(config, {}, batch, batch.images, torch.zeros(1, 6, 4, 7))
        assert (seen.views is None) == (classes == "neighbours")
    pretrain(
        replace(pretrain_config(tmp_path / "pairs"), vae=PAIRS, views=2, augment=AugmentConfig(rotation=9)), bank()
    )
    source = EncoderSection(source=str(tmp_path / "pairs"), features=["content"])
    with pytest.raises(InputError, match="'warp_pairs' compares warps of one picture"):
        do_train(train_config(tmp_path / "none", mode="guided", episodes=shape, encoder=source))


@pytest.mark.parametrize("rotations", ["none", "classes", "episode"])
def test_the_factors_of_an_image_hold_for_no_turn_of_it(tmp_path: Path, rotations: str) -> None:
    plain = bank()
    plain = replace(plain, factors=Factors(torch.rand(len(plain), 1), ("angle",)))
    seen = plain.with_rotations() if rotations == "classes" else plain
    config = train_config(tmp_path / "run", mode="guided", data=DataConfig(rotations=rotations))
    learner = make_learner("prototypes", load_encoder("guided-vae-omniglot"), 3)
    terms = EpisodeTerms(config, Parts(learner), seen, Device.choose("cpu", "float32"))
    assert terms.factors is not None
    assert float(terms.factors.known.double().mean()) == {"none": 1.0, "classes": 0.25, "episode": 0.0}[rotations]


def test_the_vae_sees_the_share_of_the_classes_it_is_given(tmp_path: Path) -> None:
    pictures, shape = bank(), EpisodeSection(6, 1, 2, 2)
    batch = make_batch(pictures, shape.sampler(pictures, 0, "train", False).span(0, 2))
    for share, ways in ((1.0, 6), (0.5, 3), (0.01, 2)):
        config = train_config(tmp_path / "run", mode="guided", episodes=shape, vae_share=share)
        known = {"third": pictures.attributes["third"].values}
        seen = _vae_batch(config, known, batch, batch.images, torch.zeros(2, 6, 3, 7))
        assert torch.equal(seen.images, batch.images[:, :ways].flatten(0, 2))
        assert torch.equal(seen.attributes["class"], pictures.labels[batch.indices[:, :ways].flatten()])
        assert torch.equal(seen.attributes["third"], seen.attributes["class"] % 3)
        assert seen.rows is not None
        assert torch.equal(pictures.labels[seen.rows], seen.attributes["class"])


def test_the_vaes_losses_are_weighed_and_the_episodes_are_not(tmp_path: Path) -> None:
    terms = []
    for weight in (0.01, 0.03):
        folder, vae = tmp_path / str(weight), VAESection(decoder_width=4)
        do_train(train_config(folder, 1, mode="guided", vae=vae, vae_weight=weight, validation=ValidationSection(0)))
        terms.append(next(iter(read_metrics(folder))))
    assert terms[1]["vae/reconstruction"] == pytest.approx(3 * terms[0]["vae/reconstruction"], rel=1e-3)
    assert terms[1]["episodes"] == pytest.approx(terms[0]["episodes"])


def test_guided_by_warps_with_labels(tmp_path: Path) -> None:
    """The supervised track with warp-pair guidance kept on: support pictures under fresh warps."""
    vae = VAESection(guidance=[{"name": "warp_pairs", "geometry": 2}], decoder_width=4)
    do_train(train_config(tmp_path / "run", mode="guided", vae=vae, views=3, vae_share=0.7))
    terms = next(iter(read_metrics(tmp_path / "run")))
    assert terms["vae/warp_pairs/content"] > 0
    assert terms["vae/warp_pairs/geometry"] > 0
    with pytest.raises(InputError, match="set views to 2"):
        do_train(train_config(tmp_path / "none", mode="guided", vae=vae))
    with pytest.raises(InputError, match="vae_share"):
        train_config(tmp_path / "none", vae_share=0.0)


def test_pretraining_on_warps_of_pictures_stops_and_goes_on(tmp_path: Path) -> None:
    def config(folder: Path, **run: object) -> PretrainConfig:
        vae = VAESection(guidance=[{"name": "warp_pairs", "geometry": 2, "inhibition": 1.0}], decoder_width=4)
        return replace(pretrain_config(folder, **run), vae=vae, batch=8, views=3)

    pretrain(config(tmp_path / "whole"), bank())
    with pytest.raises(Interrupted):
        pretrain(config(tmp_path / "stopped", stop_after=7), bank())
    pretrain(config(tmp_path / "stopped", resume=True), bank())
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "vae.safetensors")
    assert load_encoder(tmp_path / "whole").units == {"geometry": [0, 1], "content": [2, 3, 4, 5, 6, 7]}
    with pytest.raises(InputError, match="set views to 2"):
        pretrain(replace(config(tmp_path / "single"), views=1), bank())


def test_training_never_touches_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Watched(type(DataConfig().make())):  # type: ignore[misc]
        def load_split(self, split: str) -> ImageBank:
            asked.append(split)
            return bank(split)

    monkeypatch.setattr(DataConfig, "make", lambda self: Watched())
    train(train_config(tmp_path / "run"))
    assert set(asked) == {"train", "validation"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": EpisodeSection(20, 1, 2, 1)}, "20-way.*has 12 such"),
        ({"episodes": EpisodeSection(3, 8, 2, 1)}, "at least 10 pictures"),
        ({"validation": ValidationSection(4, 13, 1, 2, 20)}, "13-way"),
        ({"mode": "frozen"}, "encoder.source"),
        ({"learner": LearnerSection("protonet")}, r"known: .*prototypes"),
        ({"encoder": EncoderSection(source="nowhere")}, "no encoder 'nowhere'"),
        ({"encoder": EncoderSection(source="guided-vae-omniglot")}, "16 x 16"),
        ({"encoder": EncoderSection(width=8, features=["geometry"])}, "allowed: latent, backbone, content"),
        ({"encoder": EncoderSection(source="guided-vae-omniglot", width=32)}, "has 64 and keeps it"),
        ({"encoder": EncoderSection(source="guided-vae-omniglot", norm="support")}, "has 'running' and keeps it"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        do_train(train_config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": LearnerSection("protonet")}, r"known: .*prototypes"),
        ({"learner": LearnerSection("ridge", {"lambda": 1})}, "no option 'lambda'"),
        ({"learner": LearnerSection("maml")}, "set validation.way to that"),
        ({"encoder": EncoderSection(source="nowhere")}, "no encoder 'nowhere'"),
        ({"encoder": EncoderSection(backbone="vgg")}, "unknown backbone"),
        ({"vae": VAESection(guidance=[{"name": "pca"}])}, "unknown guidance"),
        ({"vae": VAESection(decoder="vit")}, "vae.decoder: unknown decoder"),
        ({"optim": OptimSection(compile=True), "learner": LearnerSection("maml")}, "Leave it off"),
    ],
)
def test_what_no_pictures_could_mend_is_refused_before_any_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, message: str
) -> None:
    monkeypatch.setattr("episodes.datasets.Dataset.load", lambda *a: pytest.fail("pictures were decoded"))
    settings = {"validation": ValidationSection(4, 4, 1, 2, 20), **changes}
    with pytest.raises(InputError, match=message):
        train(train_config(tmp_path / "run", **settings))
    if not {"encoder", "vae"} & set(changes) or "nowhere" in message:
        return
    with pytest.raises(InputError, match=message):
        pretrain(replace(pretrain_config(tmp_path / "run"), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 2}, "Leave views out"),
        ({"views": 2, "mode": "guided", "episodes": EpisodeSection(classes="pictures")}, "Leave views out"),
        ({"vae_weight": -1.0}, "vae_weight"),
        ({"run_stop_after": 0}, "run.stop_after"),
        ({"run_seed": 2**64}, "run.seed"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_config(tmp_path / "run", **changes)
    with pytest.raises(InputError, match="every >= 0"):
        ValidationSection(every=-1)


def test_a_run_goes_on_with_the_same_pictures_only(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        do_train(train_config(tmp_path / "run", run_stop_after=5))
    other = stripes(12, 8, 16, seed=7)
    assert other.fingerprint == bank().fingerprint
    with pytest.raises(InputError, match="the pictures now are stripes"):
        train(train_config(tmp_path / "run", run_resume=True), other, bank("validation"))
    # an older version noted no pixels
    noted = json.loads((tmp_path / "run" / "data.json").read_text())
    del noted["pixels"]
    (tmp_path / "run" / "data.json").write_text(json.dumps(noted))
    do_train(train_config(tmp_path / "run", run_resume=True))


def test_a_run_folder_is_not_overwritten_nor_resumed_with_another_config(tmp_path: Path) -> None:
    do_train(train_config(tmp_path / "run", steps=3))
    with pytest.raises(InputError, match="not empty"):
        do_train(train_config(tmp_path / "run", steps=3))
    with pytest.raises(InputError, match="another config: optim"):
        do_train(train_config(tmp_path / "run", steps=9, run_resume=True))
    with pytest.raises(InputError, match="no run to resume"):
        do_train(train_config(tmp_path / "other", run_resume=True))


def test_a_run_of_a_version_that_knew_no_capture_goes_on_and_with_capture_does_not(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        do_train(train_config(tmp_path / "run", run_stop_after=5))
    path = tmp_path / "run" / "config.yaml"
    noted = yaml.safe_load(path.read_text())
    assert noted["augment"].pop("capture", 0) is None
    path.write_text(yaml.safe_dump(noted))
    captured = AugmentConfig(rotation=10, capture=CaptureConfig(blur=0.1))
    with pytest.raises(InputError, match="another config: augment differ"):
        do_train(train_config(tmp_path / "run", augment=captured, run_resume=True))
    do_train(train_config(tmp_path / "run", run_resume=True))
    do_train(train_config(tmp_path / "whole"))
    assert_same_run(tmp_path / "whole", tmp_path / "run", "learner.safetensors")


def test_a_run_of_a_version_that_knew_no_attributes_of_images_goes_on(tmp_path: Path) -> None:
    hands = drawn_by_hands(size=16)
    with pytest.raises(Interrupted):
        pretrain(pretrain_config(tmp_path / "run", stop_after=5), hands)
    path = tmp_path / "run" / "config.yaml"
    noted = yaml.safe_load(path.read_text())
    assert noted["attributes"].pop("hand") == 4
    path.write_text(yaml.safe_dump(noted))
    pretrain(pretrain_config(tmp_path / "run", resume=True), hands)
    noted["attributes"]["third"] = 2
    path.write_text(yaml.safe_dump(noted))
    with pytest.raises(InputError, match="another config: attributes differ"):
        pretrain(pretrain_config(tmp_path / "run", resume=True), hands)


def seen_by_the_vae(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The images and attributes of every step from now on."""
    seen = []

    def losses(self: GuidedVAE, images: Tensor, attributes: Any = None, *rest: Any, **named: Any) -> dict[str, Tensor]:
        seen.append((images.detach(), dict(attributes)))
        return plain(self, images, attributes, *rest, **named)

    plain = GuidedVAE.losses
    monkeypatch.setattr(GuidedVAE, "losses", losses)
    return seen


@pytest.mark.parametrize("work", ["pictures", "episodes"])
def test_a_guidance_sees_each_images_own_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    seen, hands = seen_by_the_vae(monkeypatch), drawn_by_hands(size=16)
    known = {
        image.numpy().tobytes(): value
        for image, value in zip(hands.images, hands.image_attributes["hand"].values.tolist(), strict=True)
    }
    if work == "pictures":
        config = replace(pretrain_config(tmp_path / "run", 3), augment=AugmentConfig(), views=2)
        pretrain(config, hands)
    else:
        section = VAESection(guidance=pretrain_config(tmp_path).vae.guidance, decoder_width=4)
        train(train_config(tmp_path / "run", 3, augment=AugmentConfig(), mode="guided", vae=section), hands, stripes())
    assert len(seen) >= 3
    for images, attributes in seen:
        rows = [(255 * image).round().to(torch.uint8).numpy().tobytes() for image in images]
        assert attributes["hand"].tolist() == [known[row] for row in rows]
        assert len(set(attributes["hand"].tolist())) > 1


def test_capture_is_a_setting_that_runs_keep_and_a_stranger_may_not_misspell(tmp_path: Path) -> None:
    captured = AugmentConfig(capture=CaptureConfig(fit=0.5, pen=0.05, resolution=8, together=0.5))
    for name, stops in (("whole", ()), ("stopped", (4,))):
        for place in stops:
            with pytest.raises(Interrupted):
                do_train(train_config(tmp_path / name, augment=captured, run_resume="auto", run_stop_after=place))
        do_train(train_config(tmp_path / name, augment=captured, run_resume="auto"))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", "learner.safetensors")
    plain = tmp_path / "plain"
    do_train(train_config(plain))
    one, other = (read_tensors(run / "learner.safetensors") for run in (plain, tmp_path / "whole"))
    assert any(not torch.equal(one[key], other[key]) for key in one)
    content = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())
    content.pop("kind")
    content.pop("attributes", None)
    assert from_dict(TrainConfig, content).augment == captured
    content["augment"]["capture"]["blurr"] = 0.1
    with pytest.raises(InputError, match=r"augment.capture needs settings among fit, margin"):
        from_dict(TrainConfig, content)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        do_train(train_config(tmp_path / "run", run_stop_after=5))
    (state,) = (tmp_path / "run" / "state").glob("step-*.pt")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        do_train(train_config(tmp_path / "run", run_resume=True))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite at step"):
        do_train(
            train_config(
                tmp_path / "run",
                optim=OptimSection(steps=40, lr=1e12, schedule="constant"),
                encoder=EncoderSection(width=8, latent=8, norm="group", features=["latent"]),
            )
        )


def test_shuffle_sees_every_picture_once_an_epoch_in_any_order() -> None:
    shuffle = Shuffle(50, 10, seed=3)
    epoch = torch.cat([shuffle(step) for step in range(5, 10)])
    assert sorted(epoch.tolist()) == list(range(50))
    assert torch.equal(Shuffle(50, 10, seed=3)(7), shuffle(7))
    assert not torch.equal(shuffle(0), shuffle(5))
    assert not torch.equal(shuffle(0), Shuffle(50, 10, seed=4)(0))


@pytest.mark.parametrize(("clip", "limit"), [(0.0, float("inf")), (0.001, 0.001)])
def test_gradients_are_clipped_to_the_norm_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float, limit: float
) -> None:
    left: list[float] = []
    step = torch.optim.AdamW.step

    def noted(optimizer: torch.optim.AdamW) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        left.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))
        step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    settings = {"optim": OptimSection(steps=2, clip=clip), "validation": ValidationSection(0)}
    do_train(train_config(tmp_path / "run", **settings))
    assert len(left) == 2
    assert max(left) <= limit * 1.01
    assert limit < 1 or min(left) > 0.01


def test_schedules() -> None:
    cosine = OptimSection(steps=100, lr=1.0)
    assert learning_rate(cosine, 0) == 1.0
    assert learning_rate(cosine, 50) == pytest.approx(0.5)
    halving = OptimSection(steps=100, lr=1.0, schedule="halving", halve_every=30)
    assert [learning_rate(halving, step) for step in (0, 29, 30, 60)] == [1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize("learner", ["maml", "anil"])
def test_a_head_that_starts_at_zero_is_validated_at_other_ways(tmp_path: Path, learner: str) -> None:
    two = ValidationSection(2, 2, 1, 2, 5)
    with pytest.raises(InputError, match=r"has a head of 3 ways; set validation\.way"):
        do_train(train_config(tmp_path / "learnt", 2, learner, validation=two))
    do_train(train_config(tmp_path / "zero", 2, LearnerSection(learner, {"head": "zero"}), validation=two))


@pytest.mark.parametrize("learner", ["maml", "anil"])
def test_a_head_of_fixed_ways_is_measured_at_those_ways(
    tmp_path: Path, learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_train(train_config(tmp_path / "run", steps=40, learner=learner))
    dataset = DataConfig().make()
    monkeypatch.setattr(type(dataset), "load_split", lambda self, split: bank(split))
    runs, protocol = [str(tmp_path / "run")], Protocol([3], query=2, episodes=40, split="validation")
    (result,) = compare(dataset, runs=runs, protocol=protocol).results
    assert result.learner == learner
    assert 0 <= result.error < 0.67
    with pytest.raises(InputError, match="ask for --way 3"):
        compare(dataset, runs=runs, protocol=replace(protocol, ways=[4]))


def test_training_and_validating_within_an_attribute(tmp_path: Path) -> None:
    within = Within("third", 0.5, same_hands=True)
    shapes = {
        "episodes": EpisodeSection(3, 1, 2, 2, within=within),
        "validation": ValidationSection(4, 3, 1, 2, 20, within),
    }
    do_train(train_config(tmp_path / "run", steps=4, **shapes))
    assert read_config(tmp_path / "run")["episodes"]["within"]["attribute"] == "third"
    assert zoo.open(tmp_path / "run").config["validation"]["within"]["same_hands"]
    with pytest.raises(InputError, match=r"needs episodes\.classes 'labels'"):
        EpisodeSection(classes="pictures", within=within)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_backbone_learns_the_same(tmp_path: Path) -> None:
    """By its logits: the last bias, which no distance sees, drifts with the rounding."""
    said = []
    for compiled in (False, True):
        config = train_config(tmp_path / str(compiled), steps=4)
        config = replace(config, optim=replace(config.optim, compile=compiled, precision="float32"))
        learner = train(config, bank(), bank("validation"))
        with torch.no_grad():
            said.append(
                learner(make_batch(bank(), EpisodeSampler(bank(), Episodes(EpisodeShape(3, 1, 2))).span(0, 2)))[1]
            )
    torch.testing.assert_close(said[1], said[0], rtol=1e-2, atol=1e-3)


def test_compile_is_refused_where_weights_differ_by_task(tmp_path: Path) -> None:
    config = train_config(tmp_path / "run", learner="maml")
    with pytest.raises(InputError, match="adapts them per task"):
        train(replace(config, optim=replace(config.optim, compile=True)), bank(), bank("validation"))
    assert not (tmp_path / "run").exists()
