"""Closed-form starts of the free vectors eta of the classifiers (Module III)."""

from __future__ import annotations

import numpy as np

from mufin.ragged import Lists


def ridge_classifiers(
    vectors: np.ndarray, truth: Lists, num_labels: int, penalty: float
) -> np.ndarray:
    """Ridge regression of each label's relevance on x^1, (L, D) float32; not in the paper.

    It is (X^T X + penalty I)^-1 X^T (Y - mean of Y), with `vectors` X (N, D) and the 0/1 relevance
    Y (N, L) of `truth`. Y is never built: X^T Y is a sum over the datapoint-label pairs.
    """
    x = vectors.astype(np.float64)
    xty = np.zeros((num_labels, x.shape[1]))
    np.add.at(xty, truth.values, x[truth.rows()])
    frequency = np.bincount(truth.values, minlength=num_labels) / len(x)
    xty -= frequency[:, None] * x.sum(0)
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), xty.T).T.astype(np.float32)
