"""Nearest rows by inner product, votes of the nearest train datapoints, frozen descriptors as
vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mufin.baselines.shared.task import Task
from mufin.errors import MufinError
from mufin.ragged import Lists, offsets_of
from mufin.ranking.order import best_first, top

if TYPE_CHECKING:
    import scipy.sparse as sp

BUDGET = 2**23  # similarities (float32) held dense at once: 32 MB, and five times that while sorted
NEIGHBOURS = 20  # train datapoints that vote


def summed_votes(
    nearest: np.ndarray,
    similarity: np.ndarray,
    train_labels: Lists,
    num_labels: int,
    k: int,
    excluded: Lists | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) and scores: the summed similarities of the neighbours that have the label.

    `nearest` (n, neighbours) are rows of train, -1 for none, `similarity` belongs to them. Labels
    are -1 and scores -inf where fewer labels are found.
    """
    import scipy.sparse as sp

    relevance = sp.csr_matrix(
        (np.ones(len(train_labels.values)), train_labels.values, train_labels.offsets),
        (len(train_labels), num_labels),
    )
    labels = np.full((len(nearest), k), -1, np.int64)
    scores = np.full((len(nearest), k), -np.inf, np.float32)
    for start in range(0, len(nearest), 4096):
        rows = np.arange(start, min(start + 4096, len(nearest)))
        ids, votes = _votes(nearest[rows], similarity[rows], relevance)
        mine = excluded.take(rows) if excluded is not None else None
        labels[rows], scores[rows] = top(ids, votes, mine, k)
    return labels, scores


def _votes(
    nearest: np.ndarray, similarity: np.ndarray, relevance: sp.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """(n, most) labels of the nearest datapoints, -1 padded, and the sums of their similarities."""
    import scipy.sparse as sp

    there = nearest >= 0
    weights = sp.csr_matrix(
        (similarity[there].astype(np.float64), nearest[there], offsets_of(there.sum(1))),
        (len(nearest), relevance.shape[0]),
    )
    sums = weights @ relevance
    length = np.diff(sums.indptr)
    ids = np.full((len(nearest), int(length.max(initial=0))), -1, np.int64)
    votes, place = np.zeros(ids.shape), np.arange(ids.shape[1]) < length[:, None]
    ids[place], votes[place] = sums.indices, sums.data
    return ids, votes


def nearest_rows(known: np.ndarray, asked: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) the rows of `known` with the largest inner products, largest first, and these.

    -1 and -inf where there are fewer. Equal products go to the earlier row.
    """
    index = np.full((len(asked), count), -1, np.int64)
    similarity = np.full((len(asked), count), -np.inf, np.float32)
    step = max(1, BUDGET // len(known))
    for start in range(0, len(asked), step):
        dense = asked[start : start + step] @ known.T
        order = best_first(dense, np.broadcast_to(np.arange(len(known)), dense.shape), count)
        index[start : start + step, : order.shape[1]] = order
        similarity[start : start + step, : order.shape[1]] = np.take_along_axis(dense, order, 1)
    return index, similarity


def frozen_vectors(task: Task, name: str) -> np.ndarray:
    """(n, text + image) float32: the frozen descriptors of `name`, each modality of unit norm.

    Zeros where a modality is missing. Raises MufinError where there are none.
    """
    parts = [unit(rows) for rows in task.descriptors.get(name, {}).values()]
    if not parts:
        raise MufinError(
            "there are no frozen descriptors to compare; run `dvc repro precompute` "
            "or leave this baseline out"
        )
    return np.concatenate(parts, 1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit norm; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
