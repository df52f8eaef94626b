"""The nearest labels, by the descriptors of the frozen encoders."""

from __future__ import annotations

import numpy as np

from mufin.baselines.shared.neighbours import frozen_vectors, nearest_rows
from mufin.baselines.shared.popularity import filled, widened
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.ranking.order import top


def baseline(task: Task, seed: int) -> Predict:
    """The nearest labels by their own descriptors, then the most popular; relations play no part.

    Nothing is drawn, so `seed` changes nothing. Raises MufinError without descriptors.
    """
    known = frozen_vectors(task, "labels")

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        asked = frozen_vectors(task, split)
        labels, similarity = nearest_rows(known, asked, widened(task, split))
        return filled(task, split, *top(labels, similarity, task.excluded[split], WIDTH))

    return predict
