"""Exact search among a few of the labels: the rows of the others are not read."""

from __future__ import annotations

import numpy as np
import torch

from mufin.ragged import Lists
from mufin.retrieval.exact import ExactNeighbours, LabelRows

NUMBERS = 2**26  # of the rows copied at once; 256 MB


def search_within(
    rows: LabelRows, queries: np.ndarray, k: int, excluded: Lists | None, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `ExactNeighbours.search` among the labels where `allowed` (L,) is true.

    (n, k) labels and similarities, so that every query gets k labels if so many have rows. Rows
    are copied in parts, so that the memory stays bounded when most labels are allowed.
    """
    label = rows.label
    chosen = np.flatnonzero(allowed[np.maximum(label, 0)] & (label >= 0))
    chosen = chosen[np.argsort(label[chosen], kind="stable")]  # the rows of a label together
    width = rows.rows.shape[1]
    found = _none(len(queries), k)
    for part in _parts(label[chosen], max(1, NUMBERS // max(width, 1))):
        some = chosen[part]
        ids, number = np.unique(label[some], return_inverse=True)
        search = ExactNeighbours(LabelRows(rows.rows[some], number, len(ids)), torch.device("cpu"))
        mine = None if excluded is None else _renumbered(excluded, ids)
        places, similarity = search.search(queries, min(k, len(ids)), mine)
        labels = np.where(places >= 0, ids[np.maximum(places, 0)], -1)
        found = _merged(found, (labels, similarity), k)
    return found


def _parts(label: np.ndarray, most: int) -> list[slice]:
    """Slices of about `most` rows, none of which cuts a label; `label` is in order."""
    out, start = [], 0
    while start < len(label):
        end = min(start + most, len(label))
        if end < len(label):
            end = int(np.searchsorted(label, label[end - 1], side="right"))
        out.append(slice(start, end))
        start = end
    return out


def _renumbered(lists: Lists, ids: np.ndarray) -> Lists:
    """The values that are among `ids` (ascending), as their places there."""
    place = np.minimum(np.searchsorted(ids, lists.values), len(ids) - 1)
    kept = lists.only(ids[place] == lists.values)
    return Lists(kept.offsets, np.searchsorted(ids, kept.values))


Found = tuple[np.ndarray, np.ndarray]


def _none(n: int, k: int) -> Found:
    return np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)


def _merged(one: Found, other: Found, k: int) -> Found:
    """The k best of two results of different labels, best first, ties by label id."""
    labels, similarity = np.hstack([one[0], other[0]]), np.hstack([one[1], other[1]])
    last = np.iinfo(np.int64).max  # padding comes last
    order = np.lexsort((np.where(labels < 0, last, labels), -similarity), axis=1)[:, :k]
    return np.take_along_axis(labels, order, 1), np.take_along_axis(similarity, order, 1)
