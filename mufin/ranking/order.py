"""The final order of candidate labels: best score first, ties by label id, no filter pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mufin.errors import MufinError
from mufin.ragged import Lists, is_in

CHUNK = 2**22  # scores sorted at once; temporaries take about 200 MB

# Labels (n, width) int64, -1 = none, and their scores (n, width) float32, -inf there.
Ranking = tuple[np.ndarray, np.ndarray]


def top(ids: np.ndarray, scores: np.ndarray, excluded: Lists | None, width: int = 100) -> Ranking:
    """The `width` best candidates of each row, best first, ties by label id.

    `ids` (n, K) are distinct label ids per row, -1 = none, and `scores` (n, K) theirs. They are
    compared as float32, and a score of -inf counts as no candidate. `excluded` are the filter
    pairs. Raises MufinError if a score is NaN.
    """
    return top_by(ids, lambda rows: scores[rows], excluded, width)


def top_by(
    ids: np.ndarray,
    scores_of: Callable[[np.ndarray], np.ndarray],
    excluded: Lists | None,
    width: int,
) -> Ranking:
    """`top` for scores that are computed in chunks.

    `scores_of(rows)` returns the scores (len(rows), K) of the datapoints `rows`.
    """
    n, k = ids.shape
    labels, best = np.full((n, width), -1, np.int64), np.full((n, width), -np.inf, np.float32)
    step = max(1, CHUNK // max(k, 1))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        some = ids[rows]
        removed = some < 0
        if excluded is not None:
            removed |= is_in(some, excluded.take(rows))
        scores = np.where(removed, -np.inf, _checked(scores_of(rows), some)).astype(np.float32)
        order = best_first(scores, some, width)
        found, kept = np.take_along_axis(scores, order, 1), order.shape[1]
        best[rows, :kept] = found
        labels[rows, :kept] = np.where(found > -np.inf, np.take_along_axis(some, order, 1), -1)
    return labels, best


def _checked(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if broken := int((np.isnan(scores) & (ids >= 0)).sum()):
        raise MufinError(
            f"{broken} scores are not a number (NaN), so the vectors that they are computed from "
            "are broken; look at the training curve, lower the learning rate and train again"
        )
    return scores


def best_first(scores: np.ndarray, tie: np.ndarray, width: int) -> np.ndarray:
    """(n, min(width, K)) columns of the highest `scores` (n, K), best first.

    Equal scores are ordered by `tie` (n, K), ascending. Columns of score -inf come last, in no
    particular order.
    """
    n, k = scores.shape
    width = min(width, k)
    if not n or not width:
        return np.zeros((n, width), np.int64)
    # np.argpartition alone would take any of several columns that equal the last score. So all
    # columns that reach it are kept, and the sort decides.
    edge = np.partition(scores, k - width, axis=1)[:, k - width, None]
    many = max(width, int(((scores >= edge) & (scores > -np.inf)).sum(1).max()))
    some = np.argpartition(scores, k - many, axis=1)[:, k - many :]
    keys = (np.take_along_axis(tie, some, 1), -np.take_along_axis(scores, some, 1))
    order = np.lexsort(keys, axis=1)[:, :width]
    return np.take_along_axis(some, order, 1)
