"""Augmented retrieval: the vectors by which a label is found (MUFIN Sec. 3.1, Module II)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mufin.nn.embedding import unit_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.made_rows import MadeRows


def searched_rows(
    kind: str,
    rows: np.ndarray | MadeRows,
    offsets: np.ndarray,
    vectors: np.ndarray | MadeRows,
    centroids: np.ndarray,
    release: Callable[[], None] | None = None,
) -> LabelRows:
    """The vectors by which labels are found, by `retrieve.vectors`: of `augmented_rows` (bag), or
    the one vector z^1 of each label that has a descriptor (vec), `vectors` (L, D).
    """
    if kind == "bag":
        return augmented_rows(rows, offsets, centroids, release)
    own, _ = rows_in_use(kind, offsets, centroids)
    shape = len(own), vectors.shape[1]
    made = MadeRows(shape, lambda numbers: vectors[own[numbers]], release)
    return LabelRows(made, own, len(vectors))


def rows_in_use(
    kind: str, offsets: np.ndarray, centroids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the rows of `searched_rows`: of bags or vectors, then of centroids."""
    sizes = np.diff(offsets)
    if kind != "bag":
        return np.flatnonzero(sizes > 0), np.zeros(0, np.int64)
    own = np.flatnonzero((sizes[: len(centroids)] > 0) & centroids.any(1))
    return np.repeat(np.arange(len(sizes)), sizes), own


def augmented_rows(
    rows: np.ndarray | MadeRows,
    offsets: np.ndarray,
    centroids: np.ndarray,
    release: Callable[[], None] | None = None,
) -> LabelRows:
    """The sum(m_l + 1) vectors of augmented retrieval: bag rows and centroids of all labels.

    `rows` (R, D) and `offsets` (L + 1,) are the bag rows of the labels, as `joint_rows` returns
    them. `centroids` is (L, D), or (0, D) for labels without train datapoints. All get unit norm
    (MUFIN Sec. 3.1, Module II). A label without train datapoints has a centroid of zeros, which is
    left out: its cosine would be 0, and that of a bag row can be negative. A label without bag rows
    has no descriptor, so it is no answer: its centroid is left out too.

    The vectors are put together when they are read, and `release` is called after many were read:
    a copy would be the largest array of a stage.
    """
    of_rows, own = rows_in_use("bag", offsets, centroids)
    count, width = len(of_rows), rows.shape[1]

    def make(numbers: np.ndarray) -> np.ndarray:
        of_bag = numbers < count
        if of_bag.all():
            return rows[numbers]
        out = np.empty((len(numbers), width), np.float32)
        out[of_bag] = rows[numbers[of_bag]]
        out[~of_bag] = unit_rows(centroids[own[numbers[~of_bag] - count]])
        return out

    label = np.concatenate([of_rows, own]).astype(np.int64, copy=False)
    return LabelRows(MadeRows((len(label), width), make, release), label, len(offsets) - 1)
