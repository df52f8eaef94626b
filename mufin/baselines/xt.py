"""A linear probabilistic label tree on TF-IDF titles, by napkinXC: the stand-in for XT (extremeText, Wydmuch et al. 2018)."""

from __future__ import annotations

import tempfile

import numpy as np
import scipy.sparse as sp
import torch

from mufin.baselines.popular import filled_pairs, widened
from mufin.baselines.task import Predict, Task
from mufin.baselines.tfidf import title_words
from mufin.errors import MufinError


def xt(task: Task, seed: int) -> Predict:
    """A tree of labels by balanced 2-means, a logistic regression at each node, the likeliest labels by exact search; then
    the most popular.

    XT is the same model of probabilities, learnt otherwise: its nodes are linear in the mean of word vectors that train
    along with them by SGD (fastText); here they are linear in TF-IDF itself, each solved by LIBLINEAR. `seed` draws the
    tree. Raises MufinError where napkinXC is not installed or no train title has a word.
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
        model.fit(_features(words["train"]), [truth[i].tolist() for i in range(len(truth))])
        model.load()

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        many = min(widened(task, split), task.num_labels)
        return filled_pairs(task, split, model.predict_proba(_features(words[split]), top_k=many))

    return predict


def _features(x: sp.csr_matrix) -> list[list[tuple[int, float]]]:
    """Rows as (word, value), Python's own numbers: napkinXC takes them safely, numpy's not always."""
    return [list(zip(row.indices.tolist(), row.data.tolist())) for row in x]
