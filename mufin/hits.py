"""Predictions that are true: looked up once for all metrics, in blocks of rows.

Predictions are (n, width) label ids, distinct within a row, best first; -1 fills rows with fewer.
Truth and filter pairs (`excluded`) are ragged label ids with one row per datapoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mufin.ragged import Lists, is_in

ROWS = 1024  # of a block; see `is_in`
TAIL_K = 10  # places in which tail labels are counted


@dataclass(frozen=True, slots=True)
class Hits:
    """What all metrics are made of: one row per datapoint, after the filter."""

    first: np.ndarray  # (n, places) bool: whether each of the first predictions is true
    gains: np.ndarray  # (n, places) float64: the weight of each label that is a hit, 0 elsewhere
    best: np.ndarray  # (n, places) float64: the largest weights of the truth, `heaviest`
    sizes: np.ndarray  # (n,) int64: |truth|
    counts: np.ndarray  # (n, len(depths)) float64: hits in the top k, for each k of `depths`
    auc: np.ndarray  # (n,) float64: `auc_of_each`
    tail_counts: np.ndarray  # (n,) int64: hits in the top 10 that are tail labels
    tail_sizes: np.ndarray  # (n,) int64: tail labels in the truth


def hits_of(
    predictions: np.ndarray,
    truth: Lists,
    excluded: Lists | None,
    weights: np.ndarray,
    places: int,
    depths: Sequence[int],
    auc_k: int,
    tail: np.ndarray,
) -> Hits:
    """The hits of predictions; only blocks of rows are ever copied.

    `weights` (L,) float64 and `tail` (L,) bool are of the labels. `places` is the width of `first`,
    if predictions are that wide.
    """
    descending = _descending(weights)
    pairs = excluded if excluded is not None and len(excluded.values) else None

    def of_block(start: int) -> tuple[np.ndarray, ...]:
        rows = slice(start, start + ROWS)
        some, true = predictions[rows], truth.between(start, min(start + ROWS, len(truth)))
        if pairs is not None:
            some, true = _without(some, true, pairs.between(start, start + len(true)))
        hits = is_in(some, true)
        top, first = some[:, :places], hits[:, :places]
        within = np.arange(hits.shape[1])[:, None] < np.asarray(depths)  # (width, len(depths))
        tail_hits = hits[:, :TAIL_K] & tail[np.maximum(some[:, :TAIL_K], 0)]
        return (
            first,
            weighted(first, top, weights),
            _heaviest(true, *descending, places),
            true.lengths(),
            hits @ within.astype(np.float64),
            auc_of_each(hits, auc_k),
            tail_hits.sum(1),
            true.only(tail[true.values]).lengths(),
        )

    blocks = [of_block(start) for start in range(0, max(len(predictions), 1), ROWS)]
    return Hits(*(np.concatenate(parts) for parts in zip(*blocks)))


def filtered(
    predictions: np.ndarray, truth: Lists, excluded: Lists | None
) -> tuple[np.ndarray, Lists]:
    """Predictions and truth without the filter pairs; later predictions move up."""
    if excluded is None or not len(excluded.values):
        return predictions, truth
    return _without(predictions, truth, excluded)


def _without(predictions: np.ndarray, truth: Lists, excluded: Lists) -> tuple[np.ndarray, Lists]:
    kept = ~is_in(predictions, excluded) & (predictions >= 0)
    closed = np.full_like(predictions, -1)
    closed[np.arange(predictions.shape[1]) < kept.sum(1)[:, None]] = predictions[kept]
    return closed, truth.minus(excluded)


def weighted(hits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k) float64: the weight of each of `labels` (n, k) that is a hit (n, k), 0 elsewhere."""
    return hits * weights[np.maximum(labels, 0)]  # a missing prediction reads label 0, times 0


def heaviest(truth: Lists, weights: np.ndarray, k: int) -> np.ndarray:
    """(n, k) float64: the largest `weights` (L,) of each row's labels, largest first, then 0."""
    return _heaviest(truth, *_descending(weights), k)


def _descending(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(L,) float64 weights, largest first, and (L,) int64: the place of each label among them."""
    order = np.argsort(-weights, kind="stable")
    place = np.empty(len(weights), np.int64)
    place[order] = np.arange(len(weights))
    return weights[order], place


def _heaviest(truth: Lists, descending: np.ndarray, place: np.ndarray, k: int) -> np.ndarray:
    # One integer per pair, (row, place): sorting these is several times faster than np.lexsort.
    rows = truth.rows()
    base = rows * len(place)
    ordered = np.sort(base + place[truth.values]) - base  # sorted within each row
    column = np.arange(len(rows)) - truth.offsets[:-1][rows]
    first = column < k
    out = np.zeros((len(truth), k))
    out[rows[first], column[first]] = descending[ordered[first]]
    return out


def auc_of_each(hits: np.ndarray, k: int) -> np.ndarray:
    """(n,) float64: the share of positive-negative pairs in the top k that are in the right order.

    `hits` (n, width) bool: whether each prediction is true, after the filter. Missing predictions
    are negatives; 0 where the top k forms no pair.
    """
    positive = hits[:, :k]
    column = np.arange(positive.shape[1], dtype=np.float64)
    # (n,) each: the number of positives and the sum of their places from 0
    count, places = (positive @ np.stack([np.ones_like(column), column], 1)).T
    negatives = k - count
    # A positive is in the right order with every negative after it. The i-th positive, at place p,
    # has p - i negatives before it. All numbers are integers, so the sums are exact.
    right = count * negatives - places + count * (count - 1) / 2
    return right / np.maximum(count * negatives, 1)
