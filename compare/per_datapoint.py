"""The table's figures per test datapoint, for standard errors and for comparisons of two rows.

Each figure is written as the mean of one value per datapoint. The values of a mean, as P@5, are the
datapoints' own figures. A ratio of sums R = A / B, as PSP@5, has the values
R + (A_i - R B_i) / mean(B): its first-order expansion (delta method).
"""

from __future__ import annotations

import numpy as np

from mufin import metrics
from mufin.evaluation.evaluator import Evaluator
from mufin.hits import auc_of_each, filtered
from mufin.ragged import Lists, is_in


def values(predictions: np.ndarray, evaluator: Evaluator) -> dict[str, np.ndarray]:
    """{metric: (n,) float64}, in percent, of (n, width) label ids on test.

    Their means are the figures.
    """
    split = evaluator.splits["test"]
    top, truth = filtered(predictions, split.labels, split.excluded)
    hits, sizes = is_in(top, truth), np.maximum(truth.lengths(), 1)
    weights = metrics.inverse_propensity(
        evaluator.frequency, evaluator.num_train, *evaluator.propensity
    )
    out = {f"P@{k}": hits[:, :k].sum(1) / k for k in (1, 5)}
    out["nDCG@5"] = _ndcg(hits, truth, 5)
    out |= {f"R@{k}": hits[:, :k].sum(1) / sizes for k in (10, 100)}
    out["PSP@5"] = of_ratio(*_propensity_scored(top, hits, truth, weights, 5))
    out["AUC@100"] = auc_of_each(hits, 100)
    out["tail R@10"] = _recall_of_labels(top, truth, evaluator.frequency < evaluator.tail, 10)
    return {name: 100 * value for name, value in out.items()}


def of_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) values whose mean is sum(a) / sum(b), 0 where that has no meaning."""
    if not b.sum() > 0:
        return np.zeros(len(a))
    ratio = a.sum() / b.sum()
    return ratio + (a - ratio * b) / b.mean()


def _ndcg(hits: np.ndarray, truth: Lists, k: int) -> np.ndarray:
    gain = 1 / np.log2(np.arange(k) + 2)
    ideal = np.append(np.inf, gain.cumsum())[np.minimum(truth.lengths(), k)]
    return hits[:, :k] @ gain[: hits.shape[1]] / ideal


def _propensity_scored(
    top: np.ndarray, hits: np.ndarray, truth: Lists, weights: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) each: inverse propensities of the hits, and of the k heaviest labels of the truth."""
    achieved = (hits[:, :k] * weights[np.maximum(top[:, :k], 0)]).sum(1)
    rows, weight = truth.rows(), weights[truth.values]
    order = np.lexsort((-weight, rows))  # row by row, the heaviest label first
    place = np.arange(len(rows)) - truth.offsets[:-1][rows]
    best = np.bincount(rows, weight[order] * (place < k), len(truth))
    return achieved, best


def _recall_of_labels(top: np.ndarray, truth: Lists, chosen: np.ndarray, k: int) -> np.ndarray:
    """R@k asked of the `chosen` (L,) labels, a mean over the datapoints that have any of them."""
    mine = truth.only(chosen[truth.values])
    size = mine.lengths()
    found = is_in(top[:, :k], mine).sum(1) / np.maximum(size, 1)
    return of_ratio(found * (size > 0), (size > 0).astype(np.float64))
