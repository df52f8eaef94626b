"""Exact search over rows that know their label: the paper's similarity itself, and the oracle for HNSW."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BUDGET = 2**26      # scores (float32) held at once, at most: 256 MB


@dataclass(frozen=True, slots=True)
class LabelRows:
    """R vectors and the label of each; a label may have any number of rows, also none."""

    rows: np.ndarray    # (R, D) float32
    label: np.ndarray   # (R,) int64
    num_labels: int


class ExactNeighbours:
    """Inner products with all rows, the maximum over each label's, then the top k (MUFIN Sec. 3.1, Module II)."""

    def __init__(self, rows: LabelRows, device: torch.device):
        order = np.argsort(rows.label, kind="stable")
        self.num_labels, self.device = rows.num_labels, device
        self.rows = torch.from_numpy(np.ascontiguousarray(rows.rows[order], np.float32)).to(device)
        self.label = torch.from_numpy(rows.label[order].astype(np.int64)).to(device)
        self.present = int(len(np.unique(rows.label)))

    @torch.inference_mode()
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, D) float32 queries -> labels (n, k) int64, similarity (n, k) float32: best first, ties by label id, -1 and
        -inf where fewer than k labels have rows."""
        n, width = len(queries), min(k, self.num_labels)
        labels, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        chunk = max(1, BUDGET // max(len(self.rows) + self.num_labels, 1))
        for start in range(0, n, chunk):
            q = torch.from_numpy(np.ascontiguousarray(queries[start:start + chunk], np.float32)).to(self.device)
            best = torch.full((self.num_labels, len(q)), -torch.inf, device=self.device)
            best.index_reduce_(0, self.label, self.rows @ q.T, "amax")
            found, index = _stable_top(best.T, width)
            index = index.masked_fill(found == -torch.inf, -1)
            labels[start:start + chunk, :width] = index.cpu().numpy()
            values[start:start + chunk, :width] = found.cpu().numpy()
        return labels, values

    def save(self, folder) -> None:
        """Nothing to save: the rows are the index."""


def _stable_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest a row, best first, ties by column, also at the edge of the top (torch.topk promises no order)."""
    edge = scores.topk(k, 1).values[:, -1:]                                    # the k-th value
    above, level = scores > edge, scores == edge
    room = k - above.sum(1, keepdim=True)
    keep = above | (level & (level.cumsum(1) <= room))
    columns = keep.nonzero()[:, 1].view(len(scores), k)                       # ascending a row
    values = scores.gather(1, columns)
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    return values.gather(1, order), columns.gather(1, order)
