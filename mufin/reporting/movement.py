"""Where cross-attention moves a datapoint: x^1 to x^{2,l} beside w_l (MUFIN Fig. 5c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Change:
    """Mean and standard deviation of <x^{2,l}, w_l> - <x^1, w_l> over `pairs` of datapoint and label; mean <x^1, w_l>."""

    before: float
    mean: float
    deviation: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Movement:
    """The change for relevant and for irrelevant labels, and their difference a datapoint."""

    relevant: Change
    irrelevant: Change
    difference: float  # mean over datapoints that have both kinds: relevant mean - irrelevant mean
    error: float  # its standard error
    datapoints: int

    @property
    def shows(self) -> bool:
        """Whether relevant labels gain more, by over two standard errors."""
        return self.difference > 2 * self.error


def movement(
    before: np.ndarray, after: np.ndarray, relevant: np.ndarray, there: np.ndarray
) -> Movement | None:
    """`before` <x^1, w_l> and `after` <x^{2,l}, w_l> of shortlisted labels, (n, K); `relevant`, `there` bool (n, K).

    None where fewer than two datapoints have both kinds of labels in their shortlist.
    """
    change, yes, no = after - before, relevant & there, ~relevant & there
    both = yes.any(1) & no.any(1)
    if both.sum() < 2:
        return None
    gaps = _row_means(change, yes)[both] - _row_means(change, no)[both]
    return Movement(
        _change(before[yes], change[yes]),
        _change(before[no], change[no]),
        float(gaps.mean()),
        float(gaps.std(ddof=1) / np.sqrt(len(gaps))),
        int(both.sum()),
    )


def _row_means(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.where(keep, values, 0).sum(1) / np.maximum(keep.sum(1), 1)


def _change(before: np.ndarray, values: np.ndarray) -> Change:
    return Change(float(before.mean()), float(values.mean()), float(values.std()), len(values))


def plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 2) the vectors (n, D) on the plane of their two principal axes, and the share of their variance it keeps."""
    centred = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    total = float((s**2).sum())
    return (u * s)[:, :2], float((s[:2] ** 2).sum()) / total if total > 0 else 1.0


def best_example(hits: np.ndarray, own: np.ndarray, others: np.ndarray) -> tuple[int, int] | None:
    """(datapoint, place) of the right prediction with the most descriptors on both sides; None without a hit.

    `hits` (n, k) bool; `own` (n,) and `others` (n, k) numbers of descriptors. The smaller of the two numbers counts,
    then their product, then the earlier place and datapoint.
    """
    if not hits.any():
        return None
    own = np.broadcast_to(own[:, None], others.shape)
    small, product = np.minimum(own, others), own * others
    rows, places = np.nonzero(hits)
    first = np.lexsort((rows, places, -product[hits], -small[hits]))[0]
    return int(rows[first]), int(places[first])
