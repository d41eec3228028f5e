"""Worth of the classifier's probabilities and "none of these" on digits as they come in files.

Half of the ten digits are known, the others strangers, in turn; the draws of experiments/plain_input.py.

python experiments/plain_certainty.py --json experiments/results/plain-certainty.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from plain_input import DRAWS, Remembering, draw, sources
from sklearn.metrics import roc_auc_score

from metagvae.classifier.calibration import expected_calibration_error
from metagvae.classifier.estimator import DEFAULT_ENCODER
from metagvae.runs.run import provenance
from metagvae.storage.atomic_files import write_json


def measure(encoder: str, images: np.ndarray, labels: np.ndarray, shot: int, draws: int) -> dict[str, float]:
    """Means over draws of: calibration error, genuine and strange images refused in %, area under the ROC curve."""
    found, classifier = [], Remembering(encoder).remember(images, labels)
    for seed in range(draws):
        known = np.random.default_rng(seed).permutation(10)[:5]
        support, query = draw(labels, shot, seed)
        support = support[np.isin(labels[support], known)]
        genuine = np.isin(labels[query], known)
        classifier.fit(support, labels[support])
        novelty = classifier.novelty(query)
        own = np.searchsorted(classifier.classes_, labels[query][genuine])
        found.append(
            (
                expected_calibration_error(classifier.predict_proba(query[genuine]), own),
                100 * np.mean(novelty[genuine] > 1),
                100 * np.mean(novelty[~genuine] > 1),
                roc_auc_score(~genuine, novelty),
            )
        )
    names = ("calibration error", "genuine refused, %", "strangers refused, %", "AUROC")
    return dict(zip(names, np.mean(found, 0).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for source, images, labels in sources():
        for shot in (1, 5):
            values = measure(arguments.encoder, images, labels, shot, arguments.draws)
            shown = {name: f"{value:.1f}" if "%" in name else f"{value:.3f}" for name, value in values.items()}
            rows.append({"images": source, "of each": shot, **shown})
            print("  ".join(map(str, rows[-1].values())), flush=True)
    if arguments.json:
        about = (
            f"{arguments.encoder}; 5 of the 10 digits known, the others strangers; means over {arguments.draws} draws."
        )
        write_json(arguments.json, {"provenance": provenance(), "about": about, "rows": rows})


if __name__ == "__main__":
    main()
