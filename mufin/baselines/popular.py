"""The most popular labels, the same for every datapoint."""

from __future__ import annotations

import numpy as np

from mufin.baselines.shared.popularity import popular
from mufin.baselines.shared.task import WIDTH, Predict, Task


def baseline(task: Task, seed: int) -> Predict:
    """Labels by train frequency for every datapoint.

    Nothing is drawn, so `seed` changes nothing.
    """

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        n = len(task.titles[split])
        return popular(task.truth["train"], task.num_labels, n, WIDTH, task.excluded[split])

    return predict
