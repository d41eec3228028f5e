"""Every command. Adding one: a file with a function whose docstring explains its arguments, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metagvae.cli.benchmark import benchmark
from metagvae.cli.calibrate import calibrate
from metagvae.cli.control import control
from metagvae.cli.cross_validate import CrossValidateConfig, cross_validate
from metagvae.cli.data import data_check, data_fetch, data_list
from metagvae.cli.demo import demo
from metagvae.cli.disentangle import disentangle
from metagvae.cli.evaluate import evaluate
from metagvae.cli.evaluate_vectors import evaluate_vectors
from metagvae.cli.export_classifier import export_classifier
from metagvae.cli.export_encoder import export_encoder
from metagvae.cli.fit_check import fit_check, next_to_label
from metagvae.cli.generate import generate
from metagvae.cli.identify import identify_mixtures, identify_warps
from metagvae.cli.import_encoder import import_encoder
from metagvae.cli.intervene import intervene
from metagvae.cli.likelihood import likelihood
from metagvae.cli.link import link
from metagvae.cli.predict import predict
from metagvae.cli.pretrain import pretrain
from metagvae.cli.probe import probe
from metagvae.cli.push_encoder import push_encoder
from metagvae.cli.refine import refine
from metagvae.cli.report import report
from metagvae.cli.sampling import sampling
from metagvae.cli.select import select
from metagvae.cli.sweep import sweep
from metagvae.cli.train import train
from metagvae.config.sections import PretrainConfig, TrainConfig
from metagvae.studies.sweep.search_space import SweepConfig

# commands that take --config, a YAML file of a config class
CONFIGURED: dict[str, tuple[type, Callable[[Any], None]]] = {
    "pretrain": (PretrainConfig, pretrain),
    "train": (TrainConfig, train),
    "cross-validate": (CrossValidateConfig, cross_validate),
    "sweep": (SweepConfig, sweep),
}
COMMANDS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "evaluate-vectors": evaluate_vectors,
    "probe": probe,
    "disentangle": disentangle,
    "generate": generate,
    "control": control,
    "sampling": sampling,
    "likelihood": likelihood,
    "link": link,
    "select": select,
    "intervene": intervene,
    "refine": refine,
    "import-encoder": import_encoder,
    "export-encoder": export_encoder,
    "export-classifier": export_classifier,
    "benchmark": benchmark,
    "push-encoder": push_encoder,
    "calibrate": calibrate,
    "predict": predict,
    "fit-check": fit_check,
    "next-to-label": next_to_label,
    "report": report,
    "demo": demo,
}
# commands of a second word
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "data": ("list, fetch or check data sets", {"list": data_list, "fetch": data_fetch, "check": data_check}),
    "identify": ("find true components unit by unit", {"mixtures": identify_mixtures, "warps": identify_warps}),
}
