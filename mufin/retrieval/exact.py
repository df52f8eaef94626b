"""Exact search for the nearest labels, over rows that each belong to a label.

It is the default search, and the reference that HNSW is compared with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.retrieval.made_rows import MadeRows

BUDGET = 2**26  # float32 scores per chunk on a CPU, 256 MB; temporaries need as much again
GPU_BUDGET = 2**30  # the same on a GPU, 4 GB, but at most a sixteenth of its free bytes
MOVED = 2**13  # rows copied at once while they are arranged
LAYERS = 64  # rows per label that are layers, see `ExactNeighbours`; a bag has about a dozen


@dataclass(frozen=True, slots=True)
class LabelRows:
    """R vectors and the label of each; a label may have any number of rows, also none."""

    rows: np.ndarray | MadeRows  # (R, D) float32
    label: np.ndarray  # (R,) int64 label ids, -1 for a removed row
    num_labels: int

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.label):
            raise MufinError(
                f"there are {len(self.rows)} vectors and {len(self.label)} labels; give one label "
                "per vector"
            )
        if len(self.label) and not -1 <= self.label.min() <= self.label.max() < self.num_labels:
            raise MufinError(
                f"the labels of the rows span [{self.label.min()}, {self.label.max()}]; they must "
                f"lie in [0, {self.num_labels}), or be -1 for a removed row"
            )

    def joined(self, more: LabelRows) -> LabelRows:
        """These rows, then `more`, which may belong to new labels and to known ones."""
        return LabelRows(
            np.concatenate([self.rows, more.rows]).astype(np.float32, copy=False),
            np.concatenate([self.label, more.label]).astype(np.int64),
            max(self.num_labels, more.num_labels),
        )

    def without(self, labels: np.ndarray) -> LabelRows:
        """These rows, with the rows of `labels` marked as removed; no row moves."""
        label = np.where(np.isin(self.label, labels), -1, self.label)
        return LabelRows(self.rows, label, self.num_labels)


@dataclass(frozen=True, slots=True)
class Arranged:
    """Rows in the layout of `_layers`, on a device."""

    rows: Tensor  # (R, D) float32
    sizes: list[int]  # rows of each part
    further: list[int]  # the place of the label of each part after the layers
    column: Tensor  # (L,) the place of each label


class ExactNeighbours:
    """The labels with the largest inner products (MUFIN Sec. 3.1, Module II).

    The similarity of a label is the maximum over its rows. To compute these maxima, labels are
    sorted by their number of rows, largest first, and rows are stored in layers: the first row of
    each label, then the second row of each label that has two, and so on. So the labels of a layer
    are the first labels of that order, and the maximum over rows is an elementwise maximum of whole
    score matrices. A scatter instead would need atomic operations on a GPU, which are not
    deterministic.
    """

    def __init__(self, rows: LabelRows, device: torch.device):
        self.source, self.device = rows, device
        self._arranged: Arranged | None = None  # by the first search, as `index` makes none

    def arranged(self) -> Arranged:
        """The rows in layers, on the device."""
        if self._arranged is None:
            self._arranged = _arranged(self.source, self.device)
        return self._arranged

    @torch.inference_mode()
    def search(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Lists | None = None,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) queries -> labels (n, k) int64 and similarities (n, k) float32, best first.

        Ties are broken by label id. If fewer than k labels have rows, -1 and -inf fill the row.
        `excluded` are labels that a query must not get (its filter pairs), and with `allowed` (L,)
        bool no query gets a label where it is false. All products are in full float32, also on a
        GPU. Equal vectors can get scores that differ in the last bit, as a matrix product may sum
        in another order in another place; ties are those of the scores.

        Raises MufinError if the queries have another width or are not finite.
        """
        queries = checked(queries, self.source.rows.shape[1])
        n, width, step = len(queries), min(k, self.source.num_labels), self.at_once(k)
        labels, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        barred = None if allowed is None else torch.from_numpy(~allowed).to(self.device)
        with _full_float32():
            for start in range(0, n, step):
                rows = np.arange(start, min(start + step, n))
                best = self._best(torch.from_numpy(queries[rows]).to(self.device))  # (q, L)
                if barred is not None:
                    best.masked_fill_(barred, -torch.inf)
                if excluded is not None:
                    mine = excluded.take(rows)
                    row = torch.from_numpy(mine.rows())
                    best[row, torch.from_numpy(mine.values.astype(np.int64))] = -torch.inf
                found, column = _top(best, width)  # columns are label ids
                values[rows, :width] = found.cpu().numpy()
                labels[rows, :width] = column.masked_fill(found == -torch.inf, -1).cpu().numpy()
        return labels, values

    def _best(self, queries: Tensor) -> Tensor:
        """(q, L) the maximum over the rows of each label, -inf for a label without rows."""
        # Columns are labels by their number of rows, until the last line puts them in id order.
        a = self.arranged()
        best = torch.full((len(queries), self.source.num_labels), -torch.inf, device=self.device)
        layers = a.rows.split(a.sizes) if a.sizes else ()
        for layer in layers[:LAYERS]:
            part = best[:, : len(layer)]  # a layer has one row of each of the first labels
            torch.maximum(part, queries @ layer.T, out=part)
        # If there is any further part, there are LAYERS layers before it.
        for place, vectors in zip(a.further, layers[LAYERS:]):
            part = best[:, place]  # many rows of one label
            torch.maximum(part, (queries @ vectors.T).amax(1), out=part)
        return best.index_select(1, a.column)

    def at_once(self, k: int) -> int:
        """The queries that are compared at once: each has a score per row and one per label.

        So it is the same for all numbers k of wanted labels.
        """
        budget = BUDGET
        if self.device.type == "cuda":
            budget = min(GPU_BUDGET, torch.cuda.mem_get_info(self.device)[0] // 16)
        return max(1, budget // max(len(self.arranged().rows) + self.source.num_labels, 1))

    def add(self, rows: LabelRows) -> None:
        """Adds rows, of known labels or of new ones."""
        self.source, self._arranged = self.source.joined(rows), None

    def remove(self, labels: np.ndarray) -> None:
        """Removes `labels` from all later searches."""
        self.source, self._arranged = self.source.without(labels), None

    def release(self) -> None:
        """Frees the memory of the arranged rows; the next search arranges them again."""
        self._arranged = None

    def save(self, folder: Path) -> None:
        """Saves nothing: the caller keeps the rows, and they are the index."""


def _arranged(rows: LabelRows, device: torch.device) -> Arranged:
    order, sizes, further, place = _layers(rows)
    out = torch.empty(len(order), rows.rows.shape[1], device=device)
    for start in range(0, len(order), MOVED):
        part = np.ascontiguousarray(rows.rows[order[start : start + MOVED]], np.float32)
        out[start : start + MOVED] = torch.from_numpy(part)
    return Arranged(out, sizes, further, torch.from_numpy(place).to(device))


def _layers(rows: LabelRows) -> tuple[np.ndarray, list[int], list[int], np.ndarray]:
    """The layout of the rows for `ExactNeighbours._best`.

    Returns the row numbers in their new order; the size of each part of it; the place of the label
    of each part after the layers; and (L,) the place of each label. The place of a label is its
    rank by number of rows, 0 for the most.

    The parts are the layers, then one part for each label with more than `LAYERS` rows. As further
    layers these rows would cost more: a layer of a few rows takes as long as one of thousands.
    """
    kept = np.flatnonzero(rows.label >= 0)  # without removed rows
    kept = kept[np.argsort(rows.label[kept], kind="stable")]  # the rows of a label together
    label = rows.label[kept]
    counts = np.bincount(label, minlength=rows.num_labels)
    place = np.empty(rows.num_labels, np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(rows.num_labels)
    # The layer of a row is its number among the rows of its label.
    layer = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Parts are numbered: layers first, then LAYERS + place for a label with more rows.
    part = np.where(layer < LAYERS, layer, LAYERS + place[label])
    order = np.lexsort((layer, place[label], part))  # by part, in a part by place, then by layer
    numbers, sizes = np.unique(part, return_counts=True)
    further = numbers[numbers >= LAYERS] - LAYERS
    return kept[order], sizes.tolist(), further.tolist(), place


def checked(queries: np.ndarray, dim: int) -> np.ndarray:
    """`queries` as contiguous float32; raises MufinError on another width, NaN or infinity."""
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise MufinError(
            f"queries have shape {queries.shape} and the index {dim} dimensions; it was built by "
            "another model: build the index again"
        )
    if len(bad := np.flatnonzero(~np.isfinite(queries).all(1))):
        raise MufinError(
            f"{len(bad)} queries hold NaN or infinity, the first is row {bad[0]}; the model that "
            "made them is broken: look at its training curve"
        )
    return np.ascontiguousarray(queries, np.float32)


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Matrix products in full float32. The 10-bit mantissa of TF32 would reorder neighbours."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores per row and their columns, best first, ties by column.

    torch.topk does not say which of several equal scores it takes. So where the k-th value also
    occurs outside of its result, the columns are chosen again.
    """
    values, columns = scores.topk(k, 1)
    edge = values[:, -1:]  # the k-th value
    if k:
        equal, taken = (scores == edge).sum(1), (values == edge).sum(1)
        ambiguous = (equal > taken) & (edge[:, 0] > -torch.inf)
    else:
        ambiguous = edge.any(1)
    if ambiguous.any():
        columns[ambiguous] = _first_of_equals(scores[ambiguous], edge[ambiguous], k)
    columns = columns.sort(1).values  # by column, so that the stable sort below keeps that order
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _first_of_equals(scores: Tensor, edge: Tensor, k: int) -> Tensor:
    """(q, k) the columns above the k-th value `edge` (q, 1), and the first that equal it."""
    above, equal = scores > edge, scores == edge
    room = k - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= room))).nonzero()[:, 1].view(len(scores), k)
