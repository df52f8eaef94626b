"""Balanced spherical 2-means: halves of similar rows, the step of every balanced tree and cluster here."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def balanced_halves(
    rows: np.ndarray | sp.csr_matrix, rng: np.random.Generator, rounds: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of the row numbers of `rows` (n, D), n >= 2, dense or sparse; the second has the odd row.

    Each round assigns the half of the rows that is nearest to each of two unit centres, relative to the other, and moves
    the centres to the means of the halves. It ends after `rounds`, or earlier where a round changes nothing.
    """
    n = rows.shape[0]
    first, second = (_dense(rows[i]) for i in rng.choice(n, 2, replace=False))
    order = np.zeros(0, np.int64)
    for _ in range(rounds):
        last, order = order, np.argsort(rows @ (first - second), kind="stable")
        if np.array_equal(last, order):
            break
        second, first = (
            _unit(np.asarray(rows[part].sum(0)).ravel())
            for part in (order[: n // 2], order[n // 2 :])
        )
    return order[: n // 2], order[n // 2 :]


def _dense(row: np.ndarray | sp.csr_matrix) -> np.ndarray:
    return row.toarray().ravel() if sp.issparse(row) else row


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
