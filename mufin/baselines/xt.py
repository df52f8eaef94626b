"""A linear probabilistic label tree on TF-IDF titles, by napkinXC.

Stands for XT (extremeText, Wydmuch et al. 2018).
"""

from __future__ import annotations

import tempfile

import numpy as np
import scipy.sparse as sp
import torch

from mufin.baselines.shared.popularity import filled_pairs, widened
from mufin.baselines.shared.quiet import quiet
from mufin.baselines.shared.task import Predict, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.errors import MufinError


def baseline(task: Task, seed: int) -> Predict:
    """The likeliest labels of a tree with a logistic regression per node, then the most popular.

    The tree comes from balanced 2-means, the likeliest labels from an exact search. XT is the same
    probability model trained in another way: its nodes are linear in the mean of word vectors,
    trained with them by SGD (fastText). Here they are linear in TF-IDF, each solved by LIBLINEAR.
    `seed` draws the tree. Raises MufinError where napkinXC is not installed or no train title has a
    word.
    """
    try:
        from napkinxc.models import PLT
    except ImportError:
        raise MufinError("napkinxc is not installed; pip install '.[baselines]'") from None
    words, truth = title_words(task), task.truth["train"]
    with tempfile.TemporaryDirectory() as folder:
        model = PLT(
            folder, seed=seed, threads=torch.get_num_threads(), verbose=0, liblinear_solver="L2R_LR"
        )
        with quiet():
            model.fit(_features(words["train"]), [truth[i].tolist() for i in range(len(truth))])
            model.load()

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        many = min(widened(task, split), task.num_labels)
        return filled_pairs(task, split, model.predict_proba(_features(words[split]), top_k=many))

    return predict


def _features(x: sp.csr_matrix) -> list[list[tuple[int, float]]]:
    """Rows as (word, value) pairs of Python numbers: napkinXC can crash on numpy's."""
    return [list(zip(row.indices.tolist(), row.data.tolist())) for row in x]
