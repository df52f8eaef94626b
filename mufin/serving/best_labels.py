"""The best labels of each query, from scores of labels or of their rows."""

from __future__ import annotations

import math

import numpy as np

Found = tuple[np.ndarray, np.ndarray]  # (n, k) labels int64, (n, k) similarities float32


def none(n: int, k: int) -> Found:
    return np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)


def merged(one: Found, other: Found, k: int) -> Found:
    """The k best labels of two results."""
    return best(np.hstack([one[0], other[0]]), np.hstack([one[1], other[1]]), k)


def best_distinct(labels: np.ndarray, values: np.ndarray, k: int) -> Found:
    """As `best`, faster, for (n, w) labels that are distinct in each row."""
    out = none(len(labels), k)
    for row, (ids, scores) in enumerate(zip(labels, values)):
        if len(ids) > k:
            least = np.partition(scores, len(ids) - k)[len(ids) - k]  # the k-th best
            chosen = np.flatnonzero(scores >= least)  # more than k where several equal it
            ids, scores = ids[chosen], scores[chosen]
        order = np.lexsort((ids, -scores))[:k]
        out[0][row, : len(order)], out[1][row, : len(order)] = ids[order], scores[order]
    return out


def best(labels: np.ndarray, values: np.ndarray, k: int) -> Found:
    """The k best distinct labels per row of (n, w), ties by label id; value -inf is none.

    A label takes its best value.
    """
    out = none(len(labels), k)
    for row, (ids, scores) in enumerate(zip(labels, values)):
        order = np.lexsort((ids, -scores))
        order = order[scores[order] > -math.inf]
        first = np.sort(np.unique(ids[order], return_index=True)[1])[:k]  # places of new labels
        order = order[first]
        out[0][row, : len(order)], out[1][row, : len(order)] = ids[order], scores[order]
    return out
