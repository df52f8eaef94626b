"""The most popular labels, the same for everyone."""

from __future__ import annotations

import numpy as np

from pipeline.ragged import Lists
from pipeline.ranking import rank


def popular(train_labels: Lists, num_labels: int, n: int, k: int,
            excluded: Lists | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) by train frequency, ties by id, without each datapoint's filter pairs; scores are frequencies."""
    frequency = np.bincount(train_labels.values, minlength=num_labels).astype(np.float32)
    most = int(np.diff(excluded.offsets).max(initial=0)) if excluded is not None else 0
    best = np.lexsort((np.arange(num_labels), -frequency))[:k + most]
    candidates = np.broadcast_to(best, (n, len(best)))
    score = np.broadcast_to(frequency[best], candidates.shape)
    return rank(candidates, score, score, 1.0, excluded, width=k)
