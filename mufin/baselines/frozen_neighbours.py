"""What frozen encoders alone give: nearest train datapoints, or nearest labels, by their descriptors."""

from __future__ import annotations

import numpy as np

from mufin.baselines.popular import filled, widened
from mufin.baselines.task import WIDTH, Predict, Task
from mufin.baselines.tfidf import BUDGET, NEIGHBOURS, summed_votes
from mufin.errors import MufinError
from mufin.ranking.order import best_first, top


def frozen_datapoints(task: Task, seed: int) -> Predict:
    """The labels of the 20 nearest train datapoints, each voting with its similarity (if positive), then the most
    popular; nothing is drawn: `seed` changes nothing. Raises MufinError without descriptors."""
    known, relevance = _vectors(task, "train"), task.truth["train"]

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        nearest, similarity = _nearest(known, _vectors(task, split), NEIGHBOURS)
        nearest[similarity <= 0] = -1
        return filled(
            task,
            split,
            *summed_votes(
                nearest, similarity, relevance, task.num_labels, WIDTH, task.excluded[split]
            ),
        )

    return predict


def frozen_labels(task: Task, seed: int) -> Predict:
    """The nearest labels by their own descriptors: no relation is known to it; `seed` changes nothing. Raises MufinError
    without descriptors."""
    known = _vectors(task, "labels")

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        labels, similarity = _nearest(known, _vectors(task, split), widened(task, split))
        return filled(task, split, *top(labels, similarity, task.excluded[split], WIDTH))

    return predict


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit norm; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _vectors(task: Task, name: str) -> np.ndarray:
    """(n, text + image) float32: each modality of unit norm, zeros where missing."""
    parts = [unit(rows) for rows in task.descriptors.get(name, {}).values()]
    if not parts:
        raise MufinError(
            "there are no frozen descriptors to compare; run `dvc repro precompute` or leave this rival out"
        )
    return np.concatenate(parts, 1)


def _nearest(known: np.ndarray, asked: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) the rows of `known` with the largest inner products, largest first, equals by row; -1, -inf for none."""
    index, similarity = (
        np.full((len(asked), count), -1, np.int64),
        np.full((len(asked), count), -np.inf, np.float32),
    )
    step = max(1, BUDGET // len(known))
    for start in range(0, len(asked), step):
        dense = asked[start : start + step] @ known.T
        order = best_first(dense, np.broadcast_to(np.arange(len(known)), dense.shape), count)
        index[start : start + step, : order.shape[1]] = order
        similarity[start : start + step, : order.shape[1]] = np.take_along_axis(dense, order, 1)
    return index, similarity
