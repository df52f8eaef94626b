"""Bonsai on TF-IDF titles, by omikuji: shallow, diverse label trees.

Khandagale et al., Machine Learning 2020.

Settings. Published, and the first of `SETTINGS`: three trees of unbalanced 100-means at depth 3,
squared hinge losses at cost 1, a beam of 10 (with these omikuji's authors reproduce the paper's
figures). Tried on valid in addition: cost 0.3, with three trees and with nine, and logistic losses.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from mufin.baselines.shared.popularity import filled_pairs, widened
from mufin.baselines.shared.quiet import quiet
from mufin.baselines.shared.task import Predict, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.errors import MufinError
from mufin.ragged import Lists

SETTINGS = (  # published first
    {"loss": "hinge", "cost": 1.0, "trees": 3},
    {"loss": "hinge", "cost": 0.3, "trees": 3},
    {"loss": "hinge", "cost": 0.3, "trees": 9},
    {"loss": "log", "cost": 1.0, "trees": 3},
)


def baseline(task: Task, seed: int, *, settings: Sequence[Settings] = SETTINGS) -> Tuned:
    """The best of `settings` on valid, by `trained`."""
    return best(task, seed, settings, trained)


def trained(
    task: Task, seed: int, *, loss: str = "hinge", cost: float = 1.0, trees: int = 3
) -> Predict:
    """`trees` of unbalanced 100-means at depth 3, a beam of 10; then the most popular labels.

    `loss` is `hinge` or `log`, `cost` its weight in the linear classifier of a node. omikuji takes
    no seed: `seed` changes nothing, and two calls differ a little. Raises MufinError where omikuji
    is not installed or no train title has a word.
    """
    try:
        from omikuji import LossType, Model
    except ImportError:
        raise MufinError("omikuji is not installed; pip install '.[baselines]'") from None
    words = title_words(task)
    settings = Model.default_hyper_param()
    settings.cluster_balanced, settings.cluster_k, settings.max_depth = False, 100, 3
    settings.linear_loss_type = LossType[loss.upper()].value
    settings.linear_c, settings.n_trees = cost, trees
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        _write(words["train"], task.truth["train"], task.num_labels, path)
        with quiet():
            threads = torch.get_num_threads()
            model = Model.train_on_data(os.fspath(path), settings, n_threads=threads)

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        many = widened(task, split)
        pairs = [list(zip(row.indices.tolist(), row.data.tolist())) for row in words[split]]
        found = [model.predict(row, top_k=many) for row in pairs]
        return filled_pairs(task, split, found)

    return predict


def _write(x: sp.csr_matrix, truth: Lists, num_labels: int, path: Path) -> None:
    """Write the XML Repository's text format.

    The first line is `rows columns labels`, then a line `label,label word:value word:value` per
    datapoint. Datapoints without a word or without a label are left out: omikuji refuses their
    lines.
    """
    rows = np.flatnonzero((np.diff(x.indptr) > 0) & (np.diff(truth.offsets) > 0))
    with open(path, "w") as file:
        file.write(f"{len(rows)} {x.shape[1]} {num_labels}\n")
        for i in rows.tolist():
            features = " ".join(
                f"{word}:{value:.6f}" for word, value in zip(x[i].indices, x[i].data)
            )
            file.write(",".join(map(str, truth[i])) + " " + features + "\n")
