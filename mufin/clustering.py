"""Balanced spherical 2-means: two halves of similar rows, for every balanced tree and cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp


def balanced_halves(
    rows: np.ndarray | sp.csr_matrix, rng: np.random.Generator, rounds: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the row numbers of `rows` (n, D), n >= 2, dense or sparse.

    With an odd n the second half is longer by one row. Each round sorts the rows by how much closer
    they are to the first of two unit centres than to the second, splits them in the middle, and
    moves each centre to the direction of the mean of its half. It stops after `rounds` rounds, or
    when a round changes nothing.
    """
    n = rows.shape[0]
    first, second = (_dense(rows[i]) for i in rng.choice(n, 2, replace=False))
    order = np.zeros(0, np.int64)
    for _ in range(rounds):
        last, order = order, np.argsort(rows @ (first - second), kind="stable")
        if np.array_equal(last, order):
            break
        second = _unit(_sum(rows[order[: n // 2]]))
        first = _unit(_sum(rows[order[n // 2 :]]))
    return order[: n // 2], order[n // 2 :]


def _dense(row: np.ndarray | sp.csr_matrix) -> np.ndarray:
    return row if isinstance(row, np.ndarray) else row.toarray().ravel()


def _sum(rows: np.ndarray | sp.csr_matrix) -> np.ndarray:
    return np.asarray(rows.sum(0)).ravel()


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
