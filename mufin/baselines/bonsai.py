"""Bonsai on TF-IDF titles, by omikuji: shallow, diverse label trees.

Khandagale et al., Machine Learning 2020.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from mufin.baselines.shared.popularity import filled_pairs, widened
from mufin.baselines.shared.quiet import quiet
from mufin.baselines.shared.task import Predict, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.errors import MufinError
from mufin.ragged import Lists


def baseline(task: Task, seed: int) -> Predict:
    """Three trees of unbalanced 100-means at depth 3, a beam of 10; then the most popular labels.

    omikuji takes no seed: `seed` changes nothing, and two calls differ a little. Raises MufinError
    where omikuji is not installed or no train title has a word.
    """
    try:
        from omikuji import Model
    except ImportError:
        raise MufinError("omikuji is not installed; pip install '.[baselines]'") from None
    words = title_words(task)
    settings = Model.default_hyper_param()
    settings.cluster_balanced, settings.cluster_k, settings.max_depth = False, 100, 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        _write(words["train"], task.truth["train"], task.num_labels, path)
        with quiet():
            threads = torch.get_num_threads()
            model = Model.train_on_data(os.fspath(path), settings, n_threads=threads)

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        many = widened(task, split)
        pairs = [list(zip(row.indices.tolist(), row.data.tolist())) for row in words[split]]
        return filled_pairs(task, split, [model.predict(row, top_k=many) for row in pairs])

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
