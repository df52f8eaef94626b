"""P@k, nDCG@k, R@k, PSP@k, PSnDCG@k, AUC@k; by popularity bin, by category, on chosen labels (MUFIN Sec. 4).

Predictions are (n, width) distinct label ids, best first, -1 where there are fewer; truth and filter pairs are ragged
label ids. Filter pairs leave predictions and truth before the top k is cut. All figures are in percent.
"""

from __future__ import annotations

import numpy as np

from mufin.ragged import Lists, is_in


def filtered(
    predictions: np.ndarray, truth: Lists, excluded: Lists | None
) -> tuple[np.ndarray, Lists]:
    """Predictions closed up, and truth, without the filter pairs."""
    if excluded is None or not len(excluded.values):
        return predictions, truth
    gone = is_in(predictions, excluded) | (predictions < 0)
    order = np.argsort(gone, 1, kind="stable")
    closed = np.take_along_axis(np.where(gone, -1, predictions), order, 1)
    return closed, truth.minus(excluded)


def precision_at_k(
    predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None
) -> float:
    """Hits in the top k over k, averaged over all datapoints; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    return _precision(is_in(predictions[:, :k], truth), k)


def recall_at_k(
    predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None
) -> float:
    """Hits in the top k over |truth|, averaged over all datapoints; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    return _recall(is_in(predictions[:, :k], truth), truth, k)


def ndcg_at_k(
    predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None
) -> float:
    """DCG of the top k over that of the ideal, min(k, |truth|) hits first; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    return _ndcg(is_in(predictions[:, :k], truth), truth, k)


def psp_at_k(
    predictions: np.ndarray,
    truth: Lists,
    k: int,
    weights: np.ndarray,
    excluded: Lists | None = None,
) -> float:
    """Propensity-scored precision with inverse propensities `weights` (L,): a ratio of sums (Jain et al. 2016)."""
    predictions, truth = filtered(predictions, truth, excluded)
    return _psp(predictions, is_in(predictions[:, :k], truth), truth, k, weights)


def psndcg_at_k(
    predictions: np.ndarray,
    truth: Lists,
    k: int,
    weights: np.ndarray,
    excluded: Lists | None = None,
) -> float:
    """Propensity-scored nDCG: a ratio of sums over datapoints of discounted, weighted gains.

    Achieved and best gains of a datapoint are first divided by the discounts of min(k, |truth|) places, as in the XML
    Repository's scripts, so that one with few labels weighs as much as one with many.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    return _psndcg(predictions, is_in(predictions[:, :k], truth), truth, k, weights)


def auc_at_k(predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None) -> float:
    """Per datapoint, correctly ordered positive-negative pairs within the top k over all such pairs, averaged over all.

    Where there is no such pair: 0 without a positive in the top k (nothing was found, also for a datapoint without
    truth), 100 with positives alone (nothing stands before one). Missing predictions form no pairs.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    return _auc(predictions, is_in(predictions[:, :k], truth), k)


def inverse_propensity(train_counts: np.ndarray, num_train: int, a: float, b: float) -> np.ndarray:
    """(L,) 1 + C (n_l + B)^-A with C = (ln N - 1)(B + 1)^A, from train counts (Jain et al. 2016)."""
    c = (np.log(max(num_train, 1)) - 1) * (b + 1) ** a
    return 1 + c * (train_counts + b) ** -a


def popularity_bins(train_counts: np.ndarray, truth: Lists, bins: int = 5) -> np.ndarray:
    """(L,) bin of each label: by train frequency (ties by id), rare first, cut so that each bin holds the same number of
    the truth's datapoint-label pairs, but for the pairs of one label (MUFIN Fig. 4)."""
    order = np.lexsort((np.arange(len(train_counts)), train_counts))
    pairs = np.bincount(truth.values, minlength=len(train_counts))[order]
    middle = pairs.cumsum() - pairs / 2
    out = np.empty(len(train_counts), np.int64)
    out[order] = np.minimum((middle * bins / max(pairs.sum(), 1)).astype(np.int64), bins - 1)
    return out


def recall_by_bin(
    predictions: np.ndarray,
    truth: Lists,
    excluded: Lists | None,
    label_bin: np.ndarray,
    k: int,
    bins: int = 5,
) -> np.ndarray:
    """(bins,) each bin's part of R@k: they sum to the whole (MUFIN Fig. 4)."""
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :k]
    part = is_in(top, truth) / np.maximum(_sizes(truth), 1)[:, None]
    total = np.bincount(label_bin[np.maximum(top, 0)].ravel(), part.ravel(), bins)
    return 100 * total / max(len(predictions), 1)


def precision_by_category(
    predictions: np.ndarray, truth: Lists, excluded: Lists | None, category: np.ndarray, k: int
) -> dict[str, tuple[int, float]]:
    """{category: (datapoints, P@k)}, the largest first (MUFIN Table 6); `category` (n,) str, '' for none."""
    predictions, truth = filtered(predictions, truth, excluded)
    hits = is_in(predictions[:, :k], truth).sum(1) / k
    names, inverse, counts = np.unique(
        category.astype(str), return_inverse=True, return_counts=True
    )
    sums = np.bincount(inverse, hits, len(names))
    return {
        str(names[i]): (int(counts[i]), 100 * sums[i] / counts[i])
        for i in np.argsort(-counts, kind="stable")
    }


def recall_of_labels(
    predictions: np.ndarray, truth: Lists, excluded: Lists | None, labels: np.ndarray, k: int
) -> float:
    """R@k asked of `labels` alone (tail labels), over the datapoints with any of them in their truth.

    Predictions stay as they are: a head label in the top k takes a tail label's place.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    mine = truth.only(np.isin(truth.values, labels))
    size = _sizes(mine)
    return _mean(is_in(predictions[:, :k], mine).sum(1)[size > 0] / size[size > 0])


def evaluate(
    predictions: np.ndarray,
    truth: Lists,
    excluded: Lists | None,
    train_counts: np.ndarray,
    num_train: int,
    propensity: tuple[float, float],
    ks=(1, 3, 5),
    recall_ks=(1, 3, 5, 10, 20, 50, 100),
    auc_k: int = 100,
) -> dict[str, float]:
    """{'P@1': ..., 'nDCG@1', 'PSP@1', 'PSnDCG@1', ..., 'R@10', ..., 'AUC@100'}, in percent.

    `train_counts` (L,) train datapoints of each label, `propensity` the A and B of inverse_propensity.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    hits, weights = (
        is_in(predictions, truth),
        inverse_propensity(train_counts, num_train, *propensity),
    )
    out: dict[str, float] = {}
    for k in ks:
        out |= {
            f"P@{k}": _precision(hits, k),
            f"nDCG@{k}": _ndcg(hits, truth, k),
            f"PSP@{k}": _psp(predictions, hits, truth, k, weights),
            f"PSnDCG@{k}": _psndcg(predictions, hits, truth, k, weights),
        }
    out |= {f"R@{k}": _recall(hits, truth, k) for k in recall_ks}
    return out | {f"AUC@{auc_k}": _auc(predictions, hits, auc_k)}


# What follows takes `hits` (n, width) bool, found once for all metrics; missing predictions are misses.


def _precision(hits: np.ndarray, k: int) -> float:
    return _mean(hits[:, :k].sum(1) / k)


def _recall(hits: np.ndarray, truth: Lists, k: int) -> float:
    return _mean(hits[:, :k].sum(1) / np.maximum(_sizes(truth), 1))


def _ndcg(hits: np.ndarray, truth: Lists, k: int) -> float:
    top = hits[:, :k]
    return _mean(top @ _discounts(top.shape[1]) / _ideal(truth, k))


def _psp(
    predictions: np.ndarray, hits: np.ndarray, truth: Lists, k: int, weights: np.ndarray
) -> float:
    return _propensity_scored(predictions, hits, truth, weights, np.ones(k), np.ones(len(truth)))


def _psndcg(
    predictions: np.ndarray, hits: np.ndarray, truth: Lists, k: int, weights: np.ndarray
) -> float:
    return _propensity_scored(predictions, hits, truth, weights, _discounts(k), _ideal(truth, k))


def _propensity_scored(
    predictions: np.ndarray,
    hits: np.ndarray,
    truth: Lists,
    weights: np.ndarray,
    gain: np.ndarray,
    norm: np.ndarray,
) -> float:
    """Achieved over best achievable, each summed over datapoints first; `gain` (k,) of a place, `norm` (n,)."""
    k = len(gain)
    top, found = predictions[:, :k], hits[:, :k]
    achieved = (found * weights[np.maximum(top, 0)]) @ gain[: top.shape[1]] / norm
    rows = truth.rows()
    heaviest = weights[truth.values][
        np.lexsort((-weights[truth.values], rows))
    ]  # a datapoint's heaviest label first
    place = np.arange(len(rows)) - truth.offsets[:-1][rows]
    best = (
        np.bincount(rows, heaviest * np.append(gain, 0.0)[np.minimum(place, k)], len(truth)) / norm
    )
    return 100 * float(achieved.sum() / best.sum()) if best.sum() > 0 else 0.0


def _auc(predictions: np.ndarray, hits: np.ndarray, k: int) -> float:
    top, positive = predictions[:, :k], hits[:, :k]
    negative = ~positive & (top >= 0)
    behind = negative.sum(1, keepdims=True) - negative.cumsum(1)  # negatives after each place
    pairs = positive.sum(1) * negative.sum(1)
    return _mean(
        np.where(
            pairs > 0,
            (positive * behind).sum(1) / np.maximum(pairs, 1),
            positive.any(1) & (pairs == 0),
        )
    )


def _discounts(k: int) -> np.ndarray:
    return 1 / np.log2(np.arange(k) + 2)


def _ideal(truth: Lists, k: int) -> np.ndarray:
    """(n,) DCG of min(k, |truth|) hits; infinite without truth, so that what is divided by it is 0."""
    return np.append(np.inf, np.cumsum(_discounts(k)))[np.minimum(_sizes(truth), k)]


def _sizes(lists: Lists) -> np.ndarray:
    return np.diff(lists.offsets)


def _mean(values: np.ndarray) -> float:
    return 100 * float(values.mean()) if len(values) else 0.0
