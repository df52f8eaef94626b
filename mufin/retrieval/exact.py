"""Exact search over rows that know their label: the paper's similarity itself, and the oracle for HNSW."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
from torch import Tensor

from mufin.errors import MufinError
from mufin.ragged import Lists

BUDGET = (
    2**26
)  # scores (float32) of a chunk on a CPU, 256 MB; what is made of them needs at most as much again
GPU_BUDGET = 2**30  # the same on a GPU, 4 GB, or a sixteenth of its free bytes where that is less
LAYERS = 64  # rows of a label that are layers, see `ExactNeighbours`; a bag has a dozen


@dataclass(frozen=True, slots=True)
class LabelRows:
    """R vectors and the label of each; a label may have any number of rows, also none."""

    rows: np.ndarray  # (R, D) float32
    label: np.ndarray  # (R,) int64; -1 = a row that was removed
    num_labels: int

    def __post_init__(self):
        if len(self.rows) != len(self.label):
            raise MufinError(
                f"{len(self.rows)} vectors and {len(self.label)} labels; each row needs its label"
            )
        if len(self.label) and not -1 <= self.label.min() <= self.label.max() < self.num_labels:
            raise MufinError(
                f"the rows' labels span [{self.label.min()}, {self.label.max()}]; they must lie in "
                f"[0, {self.num_labels}), or be -1 for a removed row"
            )

    def joined(self, more: LabelRows) -> LabelRows:
        """These rows, then `more`: for labels that are new, and for further rows of known ones."""
        return LabelRows(
            np.concatenate([self.rows, more.rows]).astype(np.float32, copy=False),
            np.concatenate([self.label, more.label]).astype(np.int64),
            max(self.num_labels, more.num_labels),
        )

    def without(self, labels: np.ndarray) -> LabelRows:
        """These rows, those of `labels` marked as removed: the others keep their place."""
        return LabelRows(
            self.rows, np.where(np.isin(self.label, labels), -1, self.label), self.num_labels
        )


class ExactNeighbours:
    """Inner products with all rows, the maximum over each label's, then the top k (MUFIN Sec. 3.1, Module II).

    The rows lie in layers: the first row of each label, then the second of each that has two, and so on; labels with
    more rows come first. So a layer's scores belong to the first labels, in their order, and the maxima over labels are
    maxima of whole matrices: no scattering, which on a GPU takes atomic operations and has no deterministic form.
    """

    def __init__(self, rows: LabelRows, device: torch.device):
        self.source, self.device = rows, device
        arrangement, self.sizes, self.further, column = _layers(rows)
        self.rows = torch.from_numpy(np.ascontiguousarray(rows.rows[arrangement], np.float32)).to(
            device
        )
        self.column = torch.from_numpy(column).to(device)

    @torch.inference_mode()
    def search(
        self, queries: np.ndarray, k: int, excluded: Lists | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) queries -> labels (n, k) int64 and similarity (n, k) float32: best first, ties by label id, -1 and
        -inf where fewer than k labels have rows.

        `excluded`: labels that a query must not get (its filter pairs). Always in full float32, also on a GPU. Equal
        vectors may differ in the last bit between places of a matrix product, so ties are those of the scores found.
        """
        queries = checked(queries, self.rows.shape[1])
        n, width = len(queries), min(k, self.source.num_labels)
        labels, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        step = max(1, self._budget() // max(len(self.rows) + self.source.num_labels, 1))
        with _full_float32():
            for start in range(0, n, step):
                rows = np.arange(start, min(start + step, n))
                best = self._best(torch.from_numpy(queries[rows]).to(self.device))  # (q, L)
                if excluded is not None:
                    mine = excluded.take(rows)
                    best[
                        torch.from_numpy(mine.rows()),
                        torch.from_numpy(mine.values.astype(np.int64)),
                    ] = -torch.inf
                found, column = _top(best, width)
                values[rows, :width] = found.cpu().numpy()
                labels[rows, :width] = column.masked_fill(found == -torch.inf, -1).cpu().numpy()
        return labels, values

    def _best(self, queries: Tensor) -> Tensor:
        """(q, L) each label's maximum over its rows, -inf where it has none. A maximum knows no order: reproducible."""
        best = torch.full((len(queries), self.source.num_labels), -torch.inf, device=self.device)
        layers = self.rows.split(self.sizes) if self.sizes else ()
        for layer in layers[:LAYERS]:
            part = best[:, : len(layer)]
            torch.maximum(part, queries @ layer.T, out=part)
        for place, vectors in zip(self.further, layers[LAYERS:]):
            part = best[:, place]
            torch.maximum(part, (queries @ vectors.T).amax(1), out=part)
        return best.index_select(1, self.column)

    def _budget(self) -> int:
        return (
            min(GPU_BUDGET, torch.cuda.mem_get_info(self.device)[0] // 16)
            if self.device.type == "cuda"
            else BUDGET
        )

    def add(self, rows: LabelRows) -> None:
        """Further rows, of known labels or of new ones."""
        self.__init__(self.source.joined(rows), self.device)

    def remove(self, labels: np.ndarray) -> None:
        """No search finds `labels` any more."""
        self.__init__(self.source.without(labels), self.device)

    def save(self, folder: Path) -> None:
        """Nothing to save: the rows are the index."""


def _layers(rows: LabelRows) -> tuple[np.ndarray, list[int], list[int], np.ndarray]:
    """How the rows are laid out for `_best`: row numbers in the new order; the size of each part; the place, among labels
    by their number of rows, of each part past the layers; and (L,) each label's place.

    The first `LAYERS` rows of labels are layers. What some label has beyond is a part of its own: a layer of a few rows
    costs as much as one of thousands.
    """
    kept = np.flatnonzero(rows.label >= 0)
    kept = kept[np.argsort(rows.label[kept], kind="stable")]
    counts = np.bincount(rows.label[kept], minlength=rows.num_labels)
    place = np.empty(rows.num_labels, np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(rows.num_labels)
    layer = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
    part = np.where(layer < LAYERS, layer, LAYERS + place[rows.label[kept]])
    order = np.lexsort((layer, place[rows.label[kept]], part))
    numbers, sizes = np.unique(part, return_counts=True)
    return kept[order], sizes.tolist(), (numbers[numbers >= LAYERS] - LAYERS).tolist(), place


def checked(queries: np.ndarray, dim: int) -> np.ndarray:
    """`queries` as contiguous float32; raises MufinError where they have another width or are not finite."""
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise MufinError(
            f"queries have shape {queries.shape} and the index {dim} dimensions; it was built by another "
            "model: build the index again"
        )
    if len(bad := np.flatnonzero(~np.isfinite(queries).all(1))):
        raise MufinError(
            f"{len(bad)} queries hold NaN or infinity, the first is row {bad[0]}; the model that made them is "
            "broken: look at its training curve"
        )
    return np.ascontiguousarray(queries, np.float32)


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32 in here: its 10-bit mantissa reorders neighbours."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest a row and their columns, best first, ties by column, also at the cut (torch.topk promises no order)."""
    values, columns = scores.topk(k, 1)
    edge = values[:, -1:]
    cut = (
        ((scores == edge).sum(1) > (values == edge).sum(1)) & (edge[:, 0] > -torch.inf)
        if k
        else edge.any(1)
    )
    if cut.any():
        columns[cut] = _first_of_equals(scores[cut], edge[cut], k)
    columns = columns.sort(1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _first_of_equals(scores: Tensor, edge: Tensor, k: int) -> Tensor:
    """(q, k) columns above the k-th value `edge` (q, 1), and the first of those that equal it."""
    above, level = scores > edge, scores == edge
    room = k - above.sum(1, keepdim=True)
    return (above | (level & (level.cumsum(1) <= room))).nonzero()[:, 1].view(len(scores), k)
