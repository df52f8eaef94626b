"""HNSW (hnswlib) over rows that know their label, that never returns fewer unique labels than there are."""

from __future__ import annotations

import json
from pathlib import Path

import hnswlib
import numpy as np
import torch

from pipeline.ann.exact import ExactNeighbours, LabelRows

OVER_FETCH = 7          # rows asked for a unique label at first; 4.7 at the median, 6.7 at most on real bags


class HnswNeighbours:
    """Approximate search: over-fetches rows, again and wider for queries that lack labels, exactly for what is left.

    Built with one thread the same rows give the same bytes; more threads build sooner and differ from run to run.
    """

    def __init__(self, rows: LabelRows, m: int, ef_construction: int, ef: int, seed: int = 0, threads: int = 1,
                 graph: Path | None = None):
        self.label, self.num_labels, self.ef, self.source = rows.label, rows.num_labels, ef, rows
        self.present = len(np.unique(rows.label))
        self.graph = hnswlib.Index("ip", rows.rows.shape[1])
        if graph is not None:
            self.graph.load_index(str(graph), max_elements=len(rows.rows))
            return
        self.graph.init_index(max(len(rows.rows), 1), M=m, ef_construction=ef_construction, random_seed=seed + 1)
        self.graph.add_items(rows.rows.astype(np.float32), np.arange(len(rows.rows)), num_threads=threads)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactNeighbours.search`; min(k, labels with rows) unique labels for every query, always."""
        n, goal, total = len(queries), min(k, self.present), len(self.label)
        labels, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        open_, fetch = np.arange(n), min(OVER_FETCH * k, total)
        while len(open_) and goal:
            if fetch * 2 > total:                                             # so wide a search is an exact one
                exact = ExactNeighbours(self.source, torch.device("cpu"))
                labels[open_], values[open_] = exact.search(queries[open_], k)
                break
            self.graph.set_ef(max(self.ef, fetch))
            rows, distances = self.graph.knn_query(queries[open_].astype(np.float32), fetch)
            labels[open_], values[open_] = _unique(self.label[rows.astype(np.int64)], 1 - distances, k)
            open_, fetch = open_[(labels[open_] >= 0).sum(1) < goal], fetch * 2
        return labels, values

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.graph.save_index(str(folder / "hnsw.bin"))
        (folder / "hnsw.json").write_text(json.dumps({"ef": self.ef}))


def _unique(labels: np.ndarray, similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k distinct labels a row of rows sorted by similarity: the maximum over a label's rows comes first."""
    n, width = labels.shape
    order = np.lexsort((labels, -similarity), axis=1)                         # ties by label id
    labels, similarity = np.take_along_axis(labels, order, 1), np.take_along_axis(similarity, order, 1)
    by_label = np.argsort(labels, 1, kind="stable")
    ranked = np.take_along_axis(labels, by_label, 1)
    first = np.ones((n, width), bool)
    np.put_along_axis(first, by_label[:, 1:], ranked[:, 1:] != ranked[:, :-1], 1)
    place = first.cumsum(1) - 1
    keep = first & (place < k)
    row = np.nonzero(keep)[0]
    out, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
    out[row, place[keep]], values[row, place[keep]] = labels[keep], similarity[keep]
    return out, values
