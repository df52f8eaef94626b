"""The labels of the nearest train datapoints, by the descriptors of the frozen encoders."""

from __future__ import annotations

import numpy as np

from mufin.baselines.shared.neighbours import (
    NEIGHBOURS,
    frozen_vectors,
    nearest_rows,
    summed_votes,
)
from mufin.baselines.shared.popularity import filled
from mufin.baselines.shared.task import WIDTH, Predict, Task


def baseline(task: Task, seed: int) -> Predict:
    """The labels of the 20 nearest train datapoints, then the most popular.

    Each neighbour votes for its labels with its similarity, if that is positive. Nothing is drawn,
    so `seed` changes nothing. Raises MufinError without descriptors.
    """
    known, relevance = frozen_vectors(task, "train"), task.truth["train"]

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        nearest, similarity = nearest_rows(known, frozen_vectors(task, split), NEIGHBOURS)
        nearest[similarity <= 0] = -1
        found = summed_votes(
            nearest, similarity, relevance, task.num_labels, WIDTH, task.excluded[split]
        )
        return filled(task, split, *found)

    return predict
