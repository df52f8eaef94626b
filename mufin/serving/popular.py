"""Answers for products with nothing to go by: popular labels of their category."""

from __future__ import annotations

import numpy as np

from mufin.serving.attributes import CATEGORY, Attributes
from mufin.serving.labels import Labels


def popular(
    labels: Labels, attributes: Attributes, category: tuple[str, ...], allowed: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most k of the labels `allowed` (count,), best first, and their scores.

    The score is the number of levels of the category that the label shares, from the widest on,
    plus a fraction that grows with its number of train datapoints: n / (1 + the largest n). Ties
    are in the order of the labels.
    """
    shared = np.zeros(labels.count)
    for level, name in enumerate(category):
        shared += attributes.mask({CATEGORY: name}, labels.count) & (shared == level)
    frequency = np.zeros(labels.count)
    frequency[: labels.base] = labels.frequency
    score = shared + frequency / (1 + frequency.max(initial=0))
    ids = np.flatnonzero(allowed)
    best = ids[np.argsort(-score[ids], kind="stable")[:k]]
    return best, score[best]
