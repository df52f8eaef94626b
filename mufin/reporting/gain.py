"""What cross-attention adds to the cosine of a datapoint with classifiers (MUFIN Fig. 5c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.evaluation.breakdowns import standard_error


@dataclass(frozen=True, slots=True)
class Gain:
    """<x^{2,l}, w_l> - <x^1, w_l> over `pairs` of a datapoint and a label."""

    before: float  # mean <x^1, w_l>, a cosine
    mean: float
    deviation: float  # standard deviation of the gain
    pairs: int


@dataclass(frozen=True, slots=True)
class Gains:
    """The gain with relevant and with irrelevant labels, and their difference per datapoint."""

    relevant: Gain
    irrelevant: Gain
    difference: float  # mean over datapoints that have both kinds: relevant mean - irrelevant mean
    error: float  # its standard error
    datapoints: int

    @property
    def shows(self) -> bool:
        """Whether relevant labels gain more, by over two standard errors."""
        return self.difference > 2 * self.error


def gains(
    before: np.ndarray, after: np.ndarray, relevant: np.ndarray, there: np.ndarray
) -> Gains | None:
    """From `before` <x^1, w_l> and `after` <x^{2,l}, w_l> of shortlisted labels, (n, K).

    `relevant` and `there`, bool (n, K): the label is in the truth; there is a label at this place.
    None where fewer than two datapoints have both kinds of labels in their shortlist.
    """
    gain, yes, no = after - before, relevant & there, ~relevant & there
    both = yes.any(1) & no.any(1)
    if both.sum() < 2:
        return None
    differences = _row_means(gain, yes)[both] - _row_means(gain, no)[both]
    return Gains(
        relevant=_gain(before[yes], gain[yes]),
        irrelevant=_gain(before[no], gain[no]),
        difference=float(differences.mean()),
        error=float(standard_error(differences)),
        datapoints=int(both.sum()),
    )


def _row_means(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.where(keep, values, 0).sum(1) / np.maximum(keep.sum(1), 1)


def _gain(before: np.ndarray, values: np.ndarray) -> Gain:
    return Gain(float(before.mean()), float(values.mean()), float(values.std()), len(values))


def plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, 2): vectors (n, D) on the plane of their principal axes; the variance's share in it."""
    centred = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    total = float((s**2).sum())
    return (u * s)[:, :2], float((s[:2] ** 2).sum()) / total if total > 0 else 1.0


def best_example(hits: np.ndarray, own: np.ndarray, others: np.ndarray) -> tuple[int, int] | None:
    """(datapoint, place) of the right prediction with the most descriptors on both sides, or None.

    `hits` (n, k) bool; `own` (n,) and `others` (n, k) numbers of descriptors. The smaller of the
    two numbers counts, then their product, then the earlier place and datapoint.
    """
    if not hits.any():
        return None
    own = np.broadcast_to(own[:, None], others.shape)
    small, product = np.minimum(own, others), own * others
    rows, places = np.nonzero(hits)
    first = np.lexsort((rows, places, -product[hits], -small[hits]))[0]
    return int(rows[first]), int(places[first])
