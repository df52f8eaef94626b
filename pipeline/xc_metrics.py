"""P@k, nDCG@k, R@k, PSP@k, PSnDCG@k, AUC@k; by popularity bin, by category, on chosen labels (METHOD, Metrics).

Predictions are (n, width) label ids, best first, -1 where there are fewer; truth and filter pairs are ragged label ids.
Filter pairs leave predictions and truth before the top k is cut. All figures are in percent.
"""

from __future__ import annotations

import numpy as np

from pipeline.ragged import Lists


def is_in(ids: np.ndarray, lists: Lists) -> np.ndarray:
    """(n, width) bool: whether each id is in the same row of `lists`; -1 never is."""
    base = int(max(ids.max(initial=0), lists.values.max(initial=0))) + 2
    keys = np.unique(lists.rows() * base + lists.values)
    return np.isin(np.arange(len(ids))[:, None] * base + np.where(ids < 0, base - 1, ids), keys)


def filtered(predictions: np.ndarray, truth: Lists, excluded: Lists | None) -> tuple[np.ndarray, Lists]:
    """Predictions closed up, and truth, without the filter pairs."""
    if excluded is None or not len(excluded.values):
        return predictions, truth
    gone = is_in(predictions, excluded) | (predictions < 0)
    order = np.argsort(gone, 1, kind="stable")
    closed = np.take_along_axis(np.where(gone, -1, predictions), order, 1)
    base = int(max(truth.values.max(initial=0), excluded.values.max(initial=0))) + 1
    keep = ~np.isin(truth.rows() * base + truth.values, excluded.rows() * base + excluded.values)
    counts = np.bincount(truth.rows()[keep], minlength=len(truth))
    return closed, Lists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), truth.values[keep])


def _hits(predictions: np.ndarray, truth: Lists, k: int) -> np.ndarray:
    """(n, k) bool, missing predictions are misses."""
    top = predictions[:, :k]
    return np.pad(is_in(top, truth), ((0, 0), (0, max(k - top.shape[1], 0))))


def _mean(values: np.ndarray) -> float:
    return 100 * float(values.mean()) if len(values) else 0.0


def precision_at_k(predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None) -> float:
    """Hits in the top k over k, averaged over all datapoints; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    return _mean(_hits(predictions, truth, k).sum(1) / k)


def recall_at_k(predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None) -> float:
    """Hits in the top k over |truth|, averaged over all datapoints; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    return _mean(_hits(predictions, truth, k).sum(1) / np.maximum(np.diff(truth.offsets), 1))


def ndcg_at_k(predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None) -> float:
    """DCG of the top k over that of the ideal, min(k, |truth|) hits first; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    discount = 1 / np.log2(np.arange(k) + 2)
    ideal = np.concatenate([[np.inf], np.cumsum(discount)])[np.minimum(np.diff(truth.offsets), k)]
    return _mean((_hits(predictions, truth, k) * discount).sum(1) / ideal)


def inverse_propensity(train_counts: np.ndarray, num_train: int, a: float, b: float) -> np.ndarray:
    """(L,) 1 + C (n_l + B)^-A with C = (ln N - 1)(B + 1)^A, from train counts (Jain et al. 2016)."""
    c = (np.log(max(num_train, 1)) - 1) * (b + 1) ** a
    return 1 + c * (train_counts + b) ** -a


def _propensity_scored(predictions, truth, k, weights, discount: np.ndarray) -> float:
    """Achieved over best attainable, each summed over the datapoints first."""
    top = np.pad(predictions[:, :k], ((0, 0), (0, max(k - predictions.shape[1], 0))), constant_values=-1)
    gained = (_hits(predictions, truth, k) * weights[np.maximum(top, 0)] * discount).sum()
    order = np.lexsort((-weights[truth.values], truth.rows()))
    place = np.arange(len(order)) - truth.offsets[:-1][truth.rows()]
    best = (weights[truth.values][order] * np.concatenate([discount, [0.0]])[np.minimum(place, k)]).sum()
    return 100 * float(gained / best) if best > 0 else 0.0


def psp_at_k(predictions: np.ndarray, truth: Lists, k: int, weights: np.ndarray, excluded: Lists | None = None) -> float:
    """Propensity-scored precision with inverse propensities `weights` (L,): a ratio of sums."""
    return _propensity_scored(*filtered(predictions, truth, excluded), k, weights, np.ones(k))


def psndcg_at_k(predictions: np.ndarray, truth: Lists, k: int, weights: np.ndarray,
                excluded: Lists | None = None) -> float:
    """Propensity-scored nDCG: a ratio of sums of discounted gains, sum over datapoints of DCG / IDCG's normaliser.

    Each datapoint's gains are divided by the sum of the discounts of min(k, |truth|) places, as in the repository's
    evaluation scripts, so that a datapoint with few labels weighs as much as one with many.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    discount = 1 / np.log2(np.arange(k) + 2)
    norm = np.concatenate([[np.inf], np.cumsum(discount)])[np.minimum(np.diff(truth.offsets), k)]
    top = np.pad(predictions[:, :k], ((0, 0), (0, max(k - predictions.shape[1], 0))), constant_values=-1)
    gained = (_hits(predictions, truth, k) * weights[np.maximum(top, 0)] * discount).sum(1) / norm
    order = np.lexsort((-weights[truth.values], truth.rows()))
    place = np.arange(len(order)) - truth.offsets[:-1][truth.rows()]
    gains = weights[truth.values][order] * np.concatenate([discount, [0.0]])[np.minimum(place, k)]
    best = np.bincount(truth.rows(), gains, len(truth)) / norm
    return 100 * float(gained.sum() / best.sum()) if best.sum() > 0 else 0.0


def auc_at_k(predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None) -> float:
    """Per datapoint, correctly ordered positive-negative pairs within the top k over all such pairs, averaged.

    Without a positive in the top k it is 0 (nothing was found); with positives alone, 100 (nothing stands before one).
    """
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :k]
    hits, there = _hits(predictions, truth, top.shape[1]), top >= 0
    misses = ~hits & there
    below = misses.sum(1, keepdims=True) - misses.cumsum(1)
    pairs = hits.sum(1) * misses.sum(1)
    value = np.where(pairs > 0, (hits * below).sum(1) / np.maximum(pairs, 1), (hits.any(1) & (pairs == 0)).astype(float))
    return _mean(value)


def popularity_bins(train_counts: np.ndarray, truth: Lists, bins: int = 5) -> np.ndarray:
    """(L,) bin of each label: labels by train frequency (ties by id), rare first, cut so that each bin holds about the
    same number of the truth's datapoint-label pairs (Fig. 4)."""
    order = np.lexsort((np.arange(len(train_counts)), train_counts))
    pairs = np.bincount(truth.values, minlength=len(train_counts))[order]
    middle = pairs.cumsum() - pairs / 2
    out = np.empty(len(train_counts), np.int64)
    out[order] = np.minimum((middle * bins / max(pairs.sum(), 1)).astype(np.int64), bins - 1)
    return out


def recall_by_bin(predictions: np.ndarray, truth: Lists, excluded: Lists | None, label_bin: np.ndarray,
                  k: int) -> np.ndarray:
    """(bins,) each bin's part of R@k: they sum to the whole (Fig. 4)."""
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :k]
    weight = is_in(top, truth) / np.maximum(np.diff(truth.offsets), 1)[:, None]
    bins = np.bincount(label_bin[np.maximum(top, 0)].ravel(), weight.ravel(), label_bin.max() + 1)
    return 100 * bins / max(len(predictions), 1)


def precision_by_category(predictions: np.ndarray, truth: Lists, excluded: Lists | None, category: np.ndarray,
                          k: int) -> dict[str, tuple[int, float]]:
    """{category: (datapoints, P@k)}, the largest first (Table 6); datapoints without a category are under ''."""
    predictions, truth = filtered(predictions, truth, excluded)
    hits = _hits(predictions, truth, k).sum(1) / k
    names, inverse, counts = np.unique(category.astype(str), return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, hits, len(names))
    return {str(names[i]): (int(counts[i]), 100 * sums[i] / counts[i]) for i in np.argsort(-counts, kind="stable")}


def recall_of_labels(predictions: np.ndarray, truth: Lists, excluded: Lists | None, labels: np.ndarray, k: int) -> float:
    """R@k asked of `labels` alone (tail labels): over datapoints with any of them in their truth; predictions as they are."""
    predictions, truth = filtered(predictions, truth, excluded)
    keep = np.isin(truth.values, labels)
    counts = np.bincount(truth.rows()[keep], minlength=len(truth))
    mine = Lists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), truth.values[keep])
    has = counts > 0
    return _mean(_hits(predictions, mine, k).sum(1)[has] / counts[has])


def evaluate(predictions: np.ndarray, truth: Lists, excluded: Lists | None, train_counts: np.ndarray, num_train: int,
             propensity: tuple[float, float], ks=(1, 3, 5), recall_ks=(10, 100), auc_k: int = 100) -> dict[str, float]:
    """All metrics by METHOD's names, in percent."""
    predictions, truth = filtered(predictions, truth, excluded)
    weights = inverse_propensity(train_counts, num_train, *propensity)
    out: dict[str, float] = {}
    for k in ks:
        out |= {f"P@{k}": precision_at_k(predictions, truth, k), f"nDCG@{k}": ndcg_at_k(predictions, truth, k),
                f"PSP@{k}": psp_at_k(predictions, truth, k, weights),
                f"PSnDCG@{k}": psndcg_at_k(predictions, truth, k, weights)}
    out |= {f"R@{k}": recall_at_k(predictions, truth, k) for k in recall_ks}
    return out | {f"AUC@{auc_k}": auc_at_k(predictions, truth, auc_k)}
