"""P@k, nDCG@k, R@k, PSP@k, PSnDCG@k and AUC@k, and their breakdowns (MUFIN Sec. 4).

Predictions are (n, width) label ids, distinct within a row, best first; -1 fills rows with fewer.
Truth and filter pairs (`excluded`) are ragged label ids with one row per datapoint. Filter pairs
are removed from predictions and truth before the top k are cut. All figures are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mufin.hits import TAIL_K, auc_of_each, filtered, heaviest, hits_of, weighted
from mufin.ragged import Lists, is_in


def precision_at_k(
    predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None
) -> float:
    """P@k: hits in the top k divided by k, averaged over all datapoints.

    A datapoint without truth counts 0.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    return _precision(is_in(predictions[:, :k], truth), k)


def recall_at_k(
    predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None
) -> float:
    """R@k: hits in the top k divided by |truth|, averaged over all datapoints.

    A datapoint without truth counts 0.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    return _recall(is_in(predictions[:, :k], truth).sum(1), truth.lengths())


def ndcg_at_k(
    predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None
) -> float:
    """nDCG@k: DCG of the top k divided by the best possible DCG, averaged over all datapoints.

    The best possible ranking has min(k, |truth|) hits first. A datapoint without truth counts 0.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    return _ndcg(is_in(predictions[:, :k], truth), truth.lengths(), k)


def psp_at_k(
    predictions: np.ndarray,
    truth: Lists,
    k: int,
    weights: np.ndarray,
    excluded: Lists | None = None,
) -> float:
    """PSP@k: propensity-scored precision, as a ratio of sums over datapoints (Jain et al. 2016).

    `weights` (L,) are the inverse propensities of the labels.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :k]
    gains = weighted(is_in(top, truth), top, weights)
    return _psp(gains, heaviest(truth, weights, k), k)


def psndcg_at_k(
    predictions: np.ndarray,
    truth: Lists,
    k: int,
    weights: np.ndarray,
    excluded: Lists | None = None,
) -> float:
    """PSnDCG@k: propensity-scored nDCG, as a ratio of sums over datapoints of discounted gains.

    Achieved and best possible gains of a datapoint are first divided by the sum of the discounts of
    its first min(k, |truth|) places, as in the scripts of the Extreme Classification Repository. So
    a datapoint with few labels weighs as much as one with many. `weights` (L,) are the inverse
    propensities.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :k]
    gains = weighted(is_in(top, truth), top, weights)
    return _psndcg(gains, heaviest(truth, weights, k), truth.lengths(), k)


def auc_at_k(predictions: np.ndarray, truth: Lists, k: int, excluded: Lists | None = None) -> float:
    """AUC@k: the share of positive-negative pairs in the top k that are in the right order.

    It is computed per datapoint and averaged over all, as in pyxclib: missing predictions count as
    negatives, and a datapoint whose top k forms no pair counts 0, also one whose k predictions are
    all positive.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    return _mean(auc_of_each(is_in(predictions[:, :k], truth), k))


def blanks_filled(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) float64: 1 for a question whose right answer has the best score, else 0.

    `scores` (n, A) are those of its answers, -inf where it has fewer, and `right` (n,) the column
    of the right one. Equal best scores count as a guess among them (fill in the blank, MUFIN
    Table 3).
    """
    best = scores == scores.max(1, keepdims=True, initial=-np.inf)
    return best[np.arange(len(best)), right] / best.sum(1)


def area_under_roc(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """The area under the ROC curve of scores (m,) and (n,), in [0, 1], and its standard error.

    It is the share of pairs in which the positive has the higher score; equal scores count half.
    The standard error is that of DeLong et al. (Biometrics 1988); 0 with one score on a side. Both
    are NaN without any.
    """
    if not len(positive) or not len(negative):
        return float("nan"), float("nan")
    above, below = _share_below(positive, negative), 1 - _share_below(negative, positive)
    variance = sum(np.var(s, ddof=1) / len(s) for s in (above, below) if len(s) > 1)
    return float(above.mean()), float(np.sqrt(variance))


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m,) the share of `others` below each score, and half the share of those equal to it."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(others))


def inverse_propensity(train_counts: np.ndarray, num_train: int, a: float, b: float) -> np.ndarray:
    """(L,) 1 + C (n_l + B)^-A, with C = (ln N - 1)(B + 1)^A (Jain et al. 2016).

    The propensity of a label is the estimated probability that a relevant label was recorded.
    `train_counts` (L,) n_l: train datapoints per label. `num_train` N: all train datapoints.
    """
    c = (np.log(max(num_train, 1)) - 1) * (b + 1) ** a
    return 1 + c * (train_counts + b) ** -a


def popularity_bins(train_counts: np.ndarray, truth: Lists, bins: int = 5) -> np.ndarray:
    """(L,) int64 popularity bin of each label, from 0 = rare to bins - 1 = popular (MUFIN Fig. 4).

    Labels are sorted by `train_counts` (L,), ties by id. The cuts give each bin the same number of
    datapoint-label pairs of `truth`, except that the pairs of one label are never divided.
    """
    order = np.lexsort((np.arange(len(train_counts)), train_counts))
    pairs = np.bincount(truth.values, minlength=len(train_counts))[order]  # of each label
    middle = pairs.cumsum() - pairs / 2  # the middle of a label's pairs decides its bin
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
    """(bins,) the contribution of each bin to R@k; the contributions sum to R@k (MUFIN Fig. 4).

    `label_bin` (L,) is the bin of each label, as `popularity_bins` returns it.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :k]
    part = is_in(top, truth) / np.maximum(truth.lengths(), 1)[:, None]  # of each place, (n, k)
    # A missing prediction (-1) counts as label 0 here; its part is 0.
    total = np.bincount(label_bin[np.maximum(top, 0)].ravel(), part.ravel(), bins)
    return 100 * total / max(len(predictions), 1)


def precision_by_category(
    predictions: np.ndarray, truth: Lists, excluded: Lists | None, category: np.ndarray, k: int
) -> dict[str, tuple[int, float]]:
    """{category: (datapoints, P@k)}, the largest category first (MUFIN Table 6).

    `category` (n,) str is that of each datapoint, '' for none.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    hits = is_in(predictions[:, :k], truth).sum(1) / k
    names, inverse, counts = np.unique(
        category.astype(str), return_inverse=True, return_counts=True
    )
    sums = np.bincount(inverse, hits, len(names))
    by_size = np.argsort(-counts, kind="stable")
    return {str(names[i]): (int(counts[i]), 100 * sums[i] / counts[i]) for i in by_size}


def recall_of_labels(
    predictions: np.ndarray, truth: Lists, excluded: Lists | None, labels: np.ndarray, k: int
) -> float:
    """R@k of `labels` only (for tail labels), over the datapoints that have one in their truth.

    Predictions are not restricted to `labels`: a head label in the top k takes a place there.
    """
    predictions, truth = filtered(predictions, truth, excluded)
    wanted = truth.only(np.isin(truth.values, labels))
    size = wanted.lengths()
    return _mean(is_in(predictions[:, :k], wanted).sum(1)[size > 0] / size[size > 0])


def evaluate(
    predictions: np.ndarray,
    truth: Lists,
    excluded: Lists | None,
    train_counts: np.ndarray,
    num_train: int,
    propensity: tuple[float, float],
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] = (1, 3, 5, 10, 20, 50, 100),
    auc_k: int = 100,
    tail_labels: np.ndarray | None = None,
) -> dict[str, float]:
    """{"P@1": ..., "nDCG@1", "PSP@1", "PSnDCG@1", ..., "R@10", ..., "AUC@100"}, in percent.

    `train_counts` (L,): train datapoints per label. `propensity`: A and B of `inverse_propensity`.
    With `tail_labels` (T,) there is also "tail R@10", `recall_of_labels` of them. The values are
    those of the functions above; here predictions are looked up in the truth once for all of them,
    in blocks of rows.
    """
    weights = inverse_propensity(train_counts, num_train, *propensity)
    tail = np.zeros(len(weights), bool)
    if tail_labels is not None:
        tail[tail_labels] = True
    found = hits_of(predictions, truth, excluded, weights, max(ks), recall_ks, auc_k, tail)
    out: dict[str, float] = {}
    for k in ks:
        out[f"P@{k}"] = _precision(found.first, k)
        out[f"nDCG@{k}"] = _ndcg(found.first, found.sizes, k)
        out[f"PSP@{k}"] = _psp(found.gains, found.best, k)
        out[f"PSnDCG@{k}"] = _psndcg(found.gains, found.best, found.sizes, k)
    for k, counts in zip(recall_ks, found.counts.T):
        out[f"R@{k}"] = _recall(counts, found.sizes)
    out[f"AUC@{auc_k}"] = _mean(found.auc)
    if tail_labels is not None:
        asked = found.tail_sizes > 0
        out[f"tail R@{TAIL_K}"] = _recall(found.tail_counts[asked], found.tail_sizes[asked])
    return out


# The functions below take what is left after the filter: `hits` (n, >= k) bool, whether each
# prediction is true, or their number (n,); `sizes` (n,), the number of true labels.


def _precision(hits: np.ndarray, k: int) -> float:
    return _mean(hits[:, :k].sum(1) / k)


def _recall(counts: np.ndarray, sizes: np.ndarray) -> float:
    return _mean(counts / np.maximum(sizes, 1))


def _ndcg(hits: np.ndarray, sizes: np.ndarray, k: int) -> float:
    top = hits[:, :k]
    return _mean(top @ _discounts(top.shape[1]) / _ideal(sizes, k))


def _psp(gains: np.ndarray, best: np.ndarray, k: int) -> float:
    return _propensity_scored(gains, best, np.ones(k), np.ones(len(gains)))


def _psndcg(gains: np.ndarray, best: np.ndarray, sizes: np.ndarray, k: int) -> float:
    return _propensity_scored(gains, best, _discounts(k), _ideal(sizes, k))


def _propensity_scored(
    gains: np.ndarray, best: np.ndarray, discount: np.ndarray, norm: np.ndarray
) -> float:
    """Achieved over best possible gain, each summed over all datapoints first.

    `gains` and `best` (n, >= k) are the inverse propensities of hits and of the heaviest labels,
    by place. `discount` (k,) is of each place; `norm` (n,) divides the gains of each datapoint.
    """
    top = np.ascontiguousarray(gains[:, : len(discount)])
    achieved = top @ discount[: top.shape[1]] / norm
    possible = np.zeros(len(best))
    for place, factor in enumerate(discount):  # place after place, as np.bincount adds
        possible += best[:, place] * factor
    possible /= norm
    return 100 * float(achieved.sum() / possible.sum()) if possible.sum() > 0 else 0.0


def _discounts(k: int) -> np.ndarray:
    """(k,) 1 / log2(place + 1) for places from 1."""
    return 1 / np.log2(np.arange(k) + 2)


def _ideal(sizes: np.ndarray, k: int) -> np.ndarray:
    """(n,) DCG of min(k, size) hits in a row.

    It is infinite for a datapoint without truth, so that the quotient is 0 there.
    """
    return np.append(np.inf, np.cumsum(_discounts(k)))[np.minimum(sizes, k)]


def _mean(values: np.ndarray) -> float:
    """The mean in percent; 0 for no values."""
    return 100 * float(values.mean()) if len(values) else 0.0
