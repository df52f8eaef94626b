"""Augmented retrieval: the rows that a label is found by (MUFIN Sec. 3.1, Module II)."""

from __future__ import annotations

import numpy as np

from mufin.nn.embedding import unit_rows
from mufin.retrieval.exact import LabelRows


def augmented_rows(rows: np.ndarray, offsets: np.ndarray, centroids: np.ndarray) -> LabelRows:
    """The sum(m_l + 1) vectors of augmented retrieval: every label's bag rows and its centroid, unit norm (Module II).

    `rows` of `joint_rows`; `centroids` (L, D), or (0, D) where labels have no train datapoints.
    """
    num_labels = len(offsets) - 1
    label = np.concatenate(
        [np.repeat(np.arange(num_labels), np.diff(offsets)), np.arange(len(centroids))]
    )
    vectors = np.concatenate([rows, unit_rows(centroids)]).astype(np.float32, copy=False)
    return LabelRows(vectors, label.astype(np.int64), num_labels)
