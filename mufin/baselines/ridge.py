"""Ridge regression per label on title words and frozen descriptors, in closed form."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve

from mufin.baselines.shared.neighbours import BUDGET, unit
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking.mix import best_on_valid
from mufin.ranking.order import top

MOST = 20_000  # train datapoints: the kernel takes 3.2 GB of float64, its factor as much again
PENALTIES = (0.3, 1.0, 3.0, 10.0)
SHARES = (0.0, 0.3, 1.0)  # weight of a frozen block's inner products; the first block's is 1
DEFAULT = 1.0  # penalty and shares where there is no valid datapoint to choose them by

# {train, valid, test} -> (n, width), rows of unit norm or zero
Block = dict[str, np.ndarray | sp.csr_matrix]


def baseline(task: Task, seed: int) -> Predict:
    """One linear classifier per label on title words and the frozen descriptors of title and
    pictures.

    The penalty and the shares of the frozen blocks are those with the best P@1 + P@5 + R@10 on
    valid. Without descriptors it uses words alone, without words descriptors alone. Nothing is
    drawn, so `seed` changes nothing. Raises MufinError above `MOST` train datapoints, and where
    there is neither a word nor a descriptor.
    """
    if (n := len(task.titles["train"])) > MOST:
        raise MufinError(
            f"ridge needs the kernel of all {n} train datapoints, more than {MOST}; "
            "leave this baseline out"
        )
    blocks = _blocks(task)
    shares, penalty = _chosen(task, blocks)
    model = KernelRidge(
        _kernel(blocks, shares, "train"), task.truth["train"], task.num_labels, penalty
    )
    return lambda split: _ranked(task, split, blocks, shares, model)


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


def _blocks(task: Task) -> list[Block]:
    """Words, text and image; a block that is missing is left out."""
    splits = ("train", "valid", "test")
    frozen = [
        {name: unit(task.descriptors[name][kind].astype(np.float64)) for name in splits}
        for kind in task.descriptors.get("train", {})
    ]
    try:
        return [title_words(task), *frozen]
    except MufinError:  # no words
        if not frozen:
            raise
        return frozen


def _chosen(task: Task, blocks: list[Block]) -> tuple[tuple[float, ...], float]:
    """The shares and the penalty that are best on valid, the first of equals.

    `DEFAULT` where valid is empty.
    """
    if not len(task.titles["valid"]):
        return (DEFAULT,) * len(blocks), DEFAULT

    def labels_of(option: tuple[tuple[float, ...], float]) -> np.ndarray:
        shares, penalty = option
        model = KernelRidge(kernel_of(shares), task.truth["train"], task.num_labels, penalty)
        return _ranked(task, "valid", blocks, shares, model)[0]

    @lru_cache(maxsize=1)  # the penalties of one choice of shares follow one another
    def kernel_of(shares: tuple[float, ...]) -> np.ndarray:
        return _kernel(blocks, shares, "train")

    options = list(product(product((1.0,), *[SHARES] * (len(blocks) - 1)), PENALTIES))
    return best_on_valid(options, labels_of, task.truth["valid"], None)[0]


def _kernel(
    blocks: list[Block], shares: tuple[float, ...], split: str, rows: slice = slice(None)
) -> np.ndarray:
    """(n, N) inner products between `rows` of `split` and the train datapoints.

    A block's products are weighted by its share.
    """
    known = [block["train"] for block in blocks]
    asked = [block[split][rows] for block in blocks]
    out = np.zeros((asked[0].shape[0], known[0].shape[0]))
    for a, b, share in zip(asked, known, shares):
        # in chunks, since a sparse product takes more memory than its dense form
        for start in range(0, len(out) if share else 0, 1024):
            part = a[start : start + 1024] @ b.T
            dense = part if isinstance(part, np.ndarray) else part.toarray()
            out[start : start + 1024] += share * dense
    return out


def _ranked(
    task: Task, split: str, blocks: list[Block], shares: tuple[float, ...], model: KernelRidge
) -> tuple[np.ndarray, np.ndarray]:
    n, labels = len(task.titles[split]), np.arange(task.num_labels)
    out = np.full((n, WIDTH), -1, np.int64), np.full((n, WIDTH), -np.inf, np.float32)
    step = max(1, BUDGET // task.num_labels)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        scores = model.scores(_kernel(blocks, shares, split, slice(start, start + step)))
        excluded, every = task.excluded[split].take(rows), np.broadcast_to(labels, scores.shape)
        out[0][rows], out[1][rows] = top(every, scores, excluded, WIDTH)
    return out
