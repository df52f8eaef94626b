"""The labels with the nearest titles by TF-IDF."""

from __future__ import annotations

import numpy as np

from mufin.baselines.shared.popularity import filled
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.tfidf import tfidf_to_labels


def baseline(task: Task, seed: int) -> Predict:
    """The labels whose titles are nearest, then the most popular.

    Nothing is drawn, so `seed` changes nothing.
    """

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        excluded = task.excluded[split]
        found = tfidf_to_labels(task.titles["labels"], task.titles[split], WIDTH, excluded)
        return filled(task, split, *found)

    return predict
