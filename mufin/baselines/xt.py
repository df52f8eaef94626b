"""A linear probabilistic label tree on TF-IDF titles, by napkinXC.

Stands for XT (extremeText, Wydmuch et al. 2018).

Settings. Published, and the first of `SETTINGS`: one tree from balanced 2-means with at most 100
labels per leaf, as XT has it, with napkinXC's default cost 10 of LIBLINEAR. Tried on valid in
addition: three trees at cost 10 and 3, and what napkinXC's authors publish for it (Jasinska-Kobus
et al. 2020): three trees from unbalanced 16-means at cost 16.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from mufin.baselines.shared.popularity import filled_pairs, widened
from mufin.baselines.shared.quiet import quiet
from mufin.baselines.shared.task import Predict, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.errors import MufinError

SETTINGS = (  # published first
    {"arity": 2, "balanced": True, "trees": 1, "cost": 10.0},
    {"arity": 2, "balanced": True, "trees": 3, "cost": 10.0},
    {"arity": 2, "balanced": True, "trees": 3, "cost": 3.0},
    {"arity": 16, "balanced": False, "trees": 3, "cost": 16.0},
)


def baseline(task: Task, seed: int, *, settings: Sequence[Settings] = SETTINGS) -> Tuned:
    """The best of `settings` on valid, by `trained`."""
    return best(task, seed, settings, trained)


def trained(
    task: Task,
    seed: int,
    *,
    arity: int = 2,
    balanced: bool = True,
    trees: int = 1,
    cost: float = 10.0,
) -> Predict:
    """The likeliest labels of trees with a logistic regression per node, then the most popular.

    Each of the `trees` comes from k-means with k = `arity`, the likeliest labels from an exact
    search, and the probabilities are averaged over the trees. `cost` is LIBLINEAR's weight of the
    loss. XT is the same probability model trained in another way: its nodes are linear in the mean
    of word vectors, trained with them by SGD (fastText). Here they are linear in TF-IDF, each
    solved by LIBLINEAR. `seed` draws the trees. Raises MufinError where napkinXC is not installed
    or no train title has a word.
    """
    try:
        from napkinxc.models import PLT
    except ImportError:
        raise MufinError("napkinxc is not installed; pip install '.[baselines]'") from None
    words, truth = title_words(task), task.truth["train"]
    folder = tempfile.mkdtemp()
    model = PLT(
        folder,
        seed=seed + 1,  # napkinXC's generator takes 0 for 1
        threads=torch.get_num_threads(),
        verbose=0,
        arity=arity,
        kmeans_balanced=balanced,
        ensemble=trees,
        liblinear_solver="L2R_LR",
        liblinear_c=cost,
    )
    # several trees are read from their files at each prediction
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
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
