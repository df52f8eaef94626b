"""Augmented retrieval: the vectors by which a label is found (MUFIN Sec. 3.1, Module II)."""

from __future__ import annotations

import numpy as np

from mufin.nn.embedding import unit_rows
from mufin.retrieval.exact import LabelRows


def augmented_rows(rows: np.ndarray, offsets: np.ndarray, centroids: np.ndarray) -> LabelRows:
    """The sum(m_l + 1) vectors of augmented retrieval: bag rows and centroids of all labels.

    `rows` (R, D) and `offsets` (L + 1,) are the bag rows of the labels, as `joint_rows` returns
    them. `centroids` is (L, D), or (0, D) for labels without train datapoints. All get unit norm
    (MUFIN Sec. 3.1, Module II).
    """
    num_labels = len(offsets) - 1
    of_rows = np.repeat(np.arange(num_labels), np.diff(offsets))
    label = np.concatenate([of_rows, np.arange(len(centroids))])
    vectors = np.concatenate([rows, unit_rows(centroids)]).astype(np.float32, copy=False)
    return LabelRows(vectors, label.astype(np.int64), num_labels)
