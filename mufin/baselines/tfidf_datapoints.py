"""The labels of the train datapoints with the nearest titles by TF-IDF."""

from __future__ import annotations

import numpy as np

from mufin.baselines.shared.neighbours import NEIGHBOURS
from mufin.baselines.shared.popularity import filled
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.tfidf import nearest_datapoints_tfidf


def baseline(task: Task, seed: int) -> Predict:
    """The labels of the 20 datapoints with the nearest titles, then the most popular.

    `seed` changes nothing.
    """

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        found = nearest_datapoints_tfidf(
            task.titles["train"],
            task.truth["train"],
            task.titles[split],
            task.num_labels,
            NEIGHBOURS,
            WIDTH,
            task.excluded[split],
        )
        return filled(task, split, *found)

    return predict
