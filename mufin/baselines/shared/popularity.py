"""The labels with the most train datapoints, alone or after the labels that a baseline found."""

from __future__ import annotations

import numpy as np

from mufin.baselines.shared.task import WIDTH, Task
from mufin.ragged import Lists, is_in
from mufin.ranking.order import top


def popular(
    train_labels: Lists, num_labels: int, n: int, k: int, excluded: Lists | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) by train frequency, ties by id, without each datapoint's filter pairs.

    Scores are frequencies.
    """
    frequency = np.bincount(train_labels.values, minlength=num_labels).astype(np.float32)
    most = int(excluded.lengths().max(initial=0)) if excluded is not None else 0
    best = np.lexsort((np.arange(num_labels), -frequency))[: k + most]
    candidates = np.broadcast_to(best, (n, len(best)))
    score = np.broadcast_to(frequency[best], candidates.shape)
    return top(candidates, score, excluded, k)


def filled(
    task: Task, split: str, labels: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`labels` and `scores` (n, WIDTH), best first, completed with the most popular other labels.

    For rows with few labels or none (a title without a known word). The
    scores of the added labels lie below all others, in the order of popularity.
    """
    more, frequency = popular(task.truth["train"], task.num_labels, 1, WIDTH + widened(task, split))
    more = np.repeat(more, len(labels), 0)
    there = labels >= 0
    found = Lists.of_padded(labels)
    more[is_in(more, found)] = -1
    lowest = scores[there].min(initial=0)
    below = np.broadcast_to(lowest - 2 + frequency / frequency.max(), more.shape)
    both, score = np.concatenate([labels, more], 1), np.concatenate([scores, below], 1)
    return top(both, score, task.excluded[split], WIDTH)


def filled_pairs(
    task: Task, split: str, found: list[list[tuple[int, float]]]
) -> tuple[np.ndarray, np.ndarray]:
    """`filled`, from (label, score) pairs in any number and order, with filter pairs."""
    shape = len(found), max(map(len, found), default=0)
    labels, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    for i, row in enumerate(found):
        labels[i, : len(row)] = [label for label, _ in row]
        scores[i, : len(row)] = [score for _, score in row]
    return filled(task, split, *top(labels, scores, task.excluded[split], WIDTH))


def widened(task: Task, split: str) -> int:
    """Labels to ask for so that WIDTH remain: WIDTH plus the most filter pairs of a datapoint."""
    return WIDTH + int(task.excluded[split].lengths().max(initial=0))
