"""Ridge regression per label on title words and frozen descriptors, in closed form.

Settings. None are published for it. The first of `SETTINGS` is the plain choice: words,
title descriptor and picture descriptor count alike, and the penalty is scikit-learn's default 1.
Tried on valid in addition: penalty 3; pictures with share 0.3; words alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve

from mufin.baselines.shared.neighbours import BUDGET, unit
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking.order import top

MOST = 20_000  # train datapoints: the kernel takes 3.2 GB of float64, its factor as much again
SETTINGS = (  # the plain one first
    {"text": 1.0, "image": 1.0, "penalty": 1.0},
    {"text": 1.0, "image": 1.0, "penalty": 3.0},
    {"text": 1.0, "image": 0.3, "penalty": 3.0},
    {"text": 0.0, "image": 0.0, "penalty": 1.0},
)

# {train, valid, test} -> (n, width), rows of unit norm or zero
Block = dict[str, np.ndarray | sp.csr_matrix]


def baseline(task: Task, seed: int, *, settings: Sequence[Settings] = SETTINGS) -> Tuned:
    """The best of `settings` on valid, by `trained`."""
    return best(task, seed, settings, trained)


def trained(
    task: Task, seed: int, *, text: float = 1.0, image: float = 1.0, penalty: float = 1.0
) -> Predict:
    """One linear classifier per label on title words and the frozen descriptors of title and
    pictures.

    `text` and `image` are the weights of the inner products of the frozen descriptors; that of the
    words is 1. Without descriptors it uses words alone, without words descriptors alone. Nothing is
    drawn, so `seed` changes nothing. Raises MufinError above `MOST` train datapoints, and where
    there is neither a word nor a descriptor.
    """
    if (n := len(task.titles["train"])) > MOST:
        raise MufinError(
            f"ridge needs the kernel of all {n} train datapoints, more than {MOST}; "
            "leave this baseline out"
        )
    blocks = _blocks(task, {"text": text, "image": image})
    model = KernelRidge(_kernel(blocks, "train"), task.truth["train"], task.num_labels, penalty)
    return lambda split: _ranked(task, split, blocks, model)


class KernelRidge:
    """W = X' (X X' + penalty I)^-1 (Y - mean(Y)), scores <w_l, x> + mean(y_l).

    X X' is the kernel of the train datapoints. It solves x X' (X X' + penalty I)^-1 for the
    datapoints asked about, then multiplies by the sparse Y: there are more labels than datapoints.
    """

    def __init__(self, kernel: np.ndarray, truth: Lists, num_labels: int, penalty: float):
        kernel = kernel.copy()
        kernel[np.diag_indices_from(kernel)] += penalty
        self.factor = cho_factor(kernel, overwrite_a=True, check_finite=False)
        self.relevance = sp.csr_matrix(
            (np.ones(len(truth.values)), truth.values, truth.offsets), (len(truth), num_labels)
        )
        self.mean = np.asarray(self.relevance.mean(0))

    def scores(self, asked: np.ndarray) -> np.ndarray:
        """(n, L) float64, from the kernel (n, N) of the datapoints asked about with train."""
        dual = cho_solve(self.factor, asked.T, check_finite=False).T
        return dual @ self.relevance + (1 - dual.sum(1, keepdims=True)) * self.mean


def _blocks(task: Task, shares: dict[str, float]) -> list[tuple[Block, float]]:
    """Words, text and image, each with its share; a block that is missing is left out."""
    splits = ("train", "valid", "test")
    frozen = [
        ({name: unit(task.descriptors[name][kind].astype(np.float64)) for name in splits}, share)
        for kind, share in shares.items()
        if kind in task.descriptors.get("train", {})
    ]
    try:
        return [(title_words(task), 1.0), *frozen]
    except MufinError:  # no words
        if not frozen:
            raise
        return frozen


def _kernel(blocks: list[tuple[Block, float]], split: str, rows: slice = slice(None)) -> np.ndarray:
    """(n, N) inner products between `rows` of `split` and the train datapoints.

    A block's products are weighted by its share.
    """
    asked = [block[split][rows] for block, _ in blocks]
    out = np.zeros((asked[0].shape[0], blocks[0][0]["train"].shape[0]))
    for a, (block, share) in zip(asked, blocks):
        # in chunks, since a sparse product takes more memory than its dense form
        for start in range(0, len(out) if share else 0, 1024):
            part = a[start : start + 1024] @ block["train"].T
            dense = part if isinstance(part, np.ndarray) else part.toarray()
            out[start : start + 1024] += share * dense
    return out


def _ranked(
    task: Task, split: str, blocks: list[tuple[Block, float]], model: KernelRidge
) -> tuple[np.ndarray, np.ndarray]:
    n, labels = len(task.titles[split]), np.arange(task.num_labels)
    out = np.full((n, WIDTH), -1, np.int64), np.full((n, WIDTH), -np.inf, np.float32)
    step = max(1, BUDGET // task.num_labels)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        scores = model.scores(_kernel(blocks, split, slice(start, start + step)))
        excluded, every = task.excluded[split].take(rows), np.broadcast_to(labels, scores.shape)
        out[0][rows], out[1][rows] = top(every, scores, excluded, WIDTH)
    return out
