"""The tab Causes: what follows from a factor that is set, and the page with such a run."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from episodes.datasets import make_dataset
from metagvae.config.optimisation import OptimSection, RunSection
from metagvae.config.sections import DataConfig, EncoderSection, PretrainConfig, VAESection
from metagvae.demo.causes_tab import Causes, figures, scale
from metagvae.demo.moving import LatentView, enlarged
from metagvae.training.pretraining import pretrain
from metagvae.vae.guided_vae import GuidedVAE

GRAPH = {"angle": [], "light": [], "length": ["angle", "light"], "middle": ["light"]}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> GuidedVAE:
    prior = {"name": "causal_flow", "graph": GRAPH, "units": 1}
    return pretrain(
        PretrainConfig(
            data=DataConfig("pendulum"),
            encoder=EncoderSection(backbone="patches", width=4, latent=4),
            vae=VAESection(decoder="patches", decoder_width=4, prior=prior),
            batch=8,
            optim=OptimSection(steps=3),
            run=RunSection(folder=str(tmp_path_factory.mktemp("causes") / "run"), device="cpu"),
        )
    )


def test_what_a_factor_causes_follows_and_nothing_else(vae: GuidedVAE) -> None:
    causes = Causes(vae)
    image = torch.rand(1, 3, 32, 32)
    assert set(causes.ranges) == set(GRAPH)
    middle = sum(causes.ranges["light"]) / 2
    pictures, said = causes.look(image, "light", middle)
    assert said == f"light = {middle:.3g} moves length, middle."
    assert [name for _, name in pictures] == ["image", "rebuilt", "do(light)"]
    wished = vae.counterfactual(image, {"light": torch.tensor([middle])}).detach()
    assert np.array_equal(pictures[2][0], enlarged(wished[0]))
    low = causes.ranges["length"][0]
    assert causes.look(image, "length", -1e9)[1] == f"length = {low:.3g} moves nothing else."


def test_the_page_has_the_tab_and_says_what_it_takes_without_causes(vae: GuidedVAE) -> None:
    gradio = pytest.importorskip("gradio")
    from metagvae.demo.causes_tab import causes_tab

    bank = make_dataset("pendulum").load("test")
    plain = GuidedVAE(vae.encoder, vae.decoder)

    def parts(view: LatentView | None) -> set[str]:
        with gradio.Blocks() as page:
            causes_tab(view)
        return {str(block.elem_id) for block in page.blocks.values() if block.elem_id}

    assert parts(LatentView(vae, bank)) == {"counterfactual", "moved-by", "factor", "set-to", "another-cause"}
    assert parts(None) == parts(LatentView(plain, bank)) == {"no-causes"}


def test_a_sliders_numbers_are_round_and_within_the_range() -> None:
    for low, high in ((54.0, 132.3000030517578), (-0.1234, 0.2), (1.008, 5.3557), (1e-6, 3e-6), (-4000.0, 7000.0)):
        first, last, step = scale(low, high)
        assert low <= first < low + step
        assert high - step < last <= high
        assert first / step == pytest.approx(round(first / step))
        assert 99 < (high - low) / step <= 1001
    assert scale(54.0, 132.3000030517578) == pytest.approx((54.0, 132.3, 0.1))


def test_pictures_of_the_page_are_whole_and_their_names_are_text() -> None:
    picture = np.random.default_rng(0).integers(256, size=(6, 4, 3), dtype=np.uint8)
    page = figures([(picture, "image"), (picture[::-1], "do(<b>)")])
    assert "<figcaption>do(&lt;b&gt;)</figcaption>" in page
    assert "<b>" not in page
    sources = re.findall(r"base64,([^\"]+)", page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]
    assert np.array_equal(shown[0], picture)
    assert np.array_equal(shown[1], picture[::-1])
