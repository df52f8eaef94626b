"""The final order of a datapoint's candidates: best score first, ties by label id, filter pairs left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mufin.errors import MufinError
from mufin.ragged import Lists, is_in

CHUNK = 2**22  # scores sorted at once: temporaries stay near 200 MB

Ranking = tuple[
    np.ndarray, np.ndarray
]  # labels (n, width) int64, -1 padded; scores (n, width) float32, -inf there


def top(ids: np.ndarray, scores: np.ndarray, excluded: Lists | None, width: int = 100) -> Ranking:
    """The `width` best of each row's candidates: labels (n, width) and scores, -1 and -inf where there are fewer.

    `ids` (n, K) distinct label ids, -1 = none; `scores` (n, K), compared as float32; a candidate of score -inf counts as
    none. `excluded` (filter pairs) leave before the cut. Raises MufinError on a score that is NaN.
    """
    return top_by(ids, lambda rows: scores[rows], excluded, width)


def top_by(
    ids: np.ndarray,
    scores_of: Callable[[np.ndarray], np.ndarray],
    excluded: Lists | None,
    width: int,
) -> Ranking:
    """`top` for scores that are computed in chunks: `scores_of(rows)` returns those of datapoints `rows`, (len(rows), K)."""
    n, k = ids.shape
    labels, best = np.full((n, width), -1, np.int64), np.full((n, width), -np.inf, np.float32)
    step = max(1, CHUNK // max(k, 1))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        some = ids[rows]
        gone = some < 0 if excluded is None else (some < 0) | is_in(some, excluded.take(rows))
        scores = np.where(gone, -np.inf, _checked(scores_of(rows), some)).astype(np.float32)
        order = best_first(scores, some, width)
        best[rows, : order.shape[1]] = found = np.take_along_axis(scores, order, 1)
        labels[rows, : order.shape[1]] = np.where(
            found > -np.inf, np.take_along_axis(some, order, 1), -1
        )
    return labels, best


def _checked(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if broken := int((np.isnan(scores) & (ids >= 0)).sum()):
        raise MufinError(
            f"{broken} scores are not a number (NaN), so the vectors that they are computed from are broken; look at the "
            "training curve, lower the learning rate and train again"
        )
    return scores


def best_first(scores: np.ndarray, tie: np.ndarray, width: int) -> np.ndarray:
    """(n, min(width, K)) columns of the highest `scores` (n, K), best first, equals by `tie` (n, K) ascending.

    Also at the cut, which np.argpartition alone leaves open: all columns level with the last one are sorted along.
    Columns of score -inf come last, in no order.
    """
    n, k = scores.shape
    width = min(width, k)
    if not n or not width:
        return np.zeros((n, width), np.int64)
    edge = np.partition(scores, k - width, axis=1)[:, k - width, None]
    many = max(width, int(((scores >= edge) & (scores > -np.inf)).sum(1).max()))
    some = np.argpartition(scores, k - many, axis=1)[:, k - many :]
    order = np.lexsort(
        (np.take_along_axis(tie, some, 1), -np.take_along_axis(scores, some, 1)), axis=1
    )[:, :width]
    return np.take_along_axis(some, order, 1)
