"""HNSW (hnswlib) over rows that know their label, that never returns fewer unique labels than there are."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from mufin.errors import MufinError
from mufin.ragged import Lists, is_in
from mufin.retrieval.exact import ExactNeighbours, LabelRows, checked

OVER_FETCH = (
    7  # rows asked for a unique label at first; 4.7 at the median, 6.7 at most on real bags
)
WIDEST = 64  # past a part of 1/64 of the rows a graph search costs more than an exact one
FETCHED = 2**22  # rows fetched in one go: bounds the memory, at about 200 MB


class HnswNeighbours:
    """Approximate search: over-fetches rows, again and wider for queries that lack labels, exactly for what is left.

    Built with one thread the same rows give the same bytes; more threads build sooner and differ from run to run.
    `graph`: a graph that `save` wrote, over the same rows; else it is built with `m` links a node.
    """

    def __init__(
        self,
        rows: LabelRows,
        m: int,
        ef_construction: int,
        ef: int,
        seed: int = 0,
        threads: int = 1,
        graph: Path | None = None,
    ):
        import hnswlib

        self.ef, self.threads = ef, threads
        self.graph = hnswlib.Index("ip", rows.rows.shape[1])
        if graph is None:
            checked(rows.rows, rows.rows.shape[1])
            self.graph.init_index(
                max(len(rows.rows), 1), M=m, ef_construction=ef_construction, random_seed=seed + 1
            )
            self._insert(rows.rows, 0)
        else:
            self._read(graph, len(rows.rows))
        self._know(rows)

    def search(
        self, queries: np.ndarray, k: int, excluded: Lists | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactNeighbours.search`; unique labels, k of them or as many as there are, for every query, always."""
        queries = checked(queries, self.source.rows.shape[1])
        n, step = len(queries), max(1, FETCHED // max(OVER_FETCH * k, 1))
        labels, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        for start in range(0, n, step):
            rows = np.arange(start, min(start + step, n))
            mine = excluded.take(rows) if excluded is not None else None
            labels[rows], values[rows] = self._search(queries[rows], k, mine)
        return labels, values

    def _search(
        self, queries: np.ndarray, k: int, excluded: Lists | None
    ) -> tuple[np.ndarray, np.ndarray]:
        labels, values = (
            np.full((len(queries), k), -1, np.int64),
            np.full((len(queries), k), -np.inf, np.float32),
        )
        goal, fetch = self._goals(len(queries), k, excluded), OVER_FETCH * k
        short = np.flatnonzero(goal > 0)
        while len(short):
            mine = excluded.take(short) if excluded is not None else None
            found = self._fetch(queries[short], fetch) if fetch <= self._widest(k) else None
            if found is None:
                labels[short], values[short] = self._exact().search(queries[short], k, mine)
                break
            if mine is not None:
                found[0][is_in(found[0], mine)] = -1
            labels[short], values[short] = _unique(*found, k)
            short, fetch = short[(labels[short] >= 0).sum(1) < goal[short]], fetch * 2
        return labels, values

    def _widest(self, k: int) -> int:
        """Rows fetched a query at most: what OVER_FETCH asks, or more where the graph is large, but never over half."""
        return min(max(OVER_FETCH * k, self.alive // WIDEST), self.alive // 2)

    def _fetch(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels and similarities (n, count) of the nearest rows; None where the graph's links do not reach so many."""
        self.graph.set_ef(max(self.ef, count))
        try:
            rows, distances = self.graph.knn_query(queries, count)
        except RuntimeError as error:
            if "contiguous 2D array" not in str(error):
                raise
            return None
        return self.source.label[rows.astype(np.int64)], 1 - distances

    def _goals(self, n: int, k: int, excluded: Lists | None) -> np.ndarray:
        """(n,) unique labels that each query can get, at most k."""
        goal = np.full(n, len(self.present))
        if excluded is not None:
            pairs = np.unique(excluded.rows() * np.int64(self.source.num_labels) + excluded.values)
            rows, ids = np.divmod(pairs, max(self.source.num_labels, 1))
            goal -= np.bincount(rows[np.isin(ids, self.present)], minlength=n)
        return np.minimum(goal, k)

    def _know(self, rows: LabelRows) -> None:
        self.source, self._oracle = rows, None
        self.present, self.alive = (
            np.unique(rows.label[rows.label >= 0]),
            int((rows.label >= 0).sum()),
        )

    def _exact(self) -> ExactNeighbours:
        if self._oracle is None:
            self._oracle = ExactNeighbours(self.source, torch.device("cpu"))
        return self._oracle

    def _insert(self, rows: np.ndarray, first: int) -> None:
        if len(rows):
            self.graph.add_items(
                np.ascontiguousarray(rows, np.float32),
                np.arange(first, first + len(rows)),
                num_threads=self.threads,
            )

    def add(self, rows: LabelRows) -> None:
        """Further rows, of known labels or of new ones."""
        checked(rows.rows, self.source.rows.shape[1])
        first = len(self.source.rows)
        self.graph.resize_index(max(first + len(rows.rows), 1))
        self._insert(rows.rows, first)
        self._know(self.source.joined(rows))

    def remove(self, labels: np.ndarray) -> None:
        """No search finds `labels` any more; their rows stay in the graph as stepping stones."""
        for row in np.flatnonzero(np.isin(self.source.label, labels) & (self.source.label >= 0)):
            self.graph.mark_deleted(row)
        self._know(self.source.without(labels))

    def save(self, folder: Path) -> None:
        """The graph, `ef` and what the graph is known by: hnswlib itself reads a broken one, and may crash over it.

        The rows (`source`) are the caller's to keep. Raises OSError where the disk did not take the whole graph, which
        hnswlib does not look at.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.graph.save_index(str(folder / "hnsw.bin"))
        _check_whole(folder / "hnsw.bin", self.graph.index_file_size())
        facts = {
            "ef": self.ef,
            "shape": self.source.rows.shape,
            "sha256": file_hash(folder / "hnsw.bin"),
        }
        (folder / "hnsw.json").write_text(json.dumps(facts) + "\n")

    def _read(self, graph: Path, count: int) -> None:
        try:
            self.graph.load_index(str(graph), max_elements=count)
        except RuntimeError as error:
            raise MufinError(
                f"{graph} cannot be read ({error}); run `dvc repro index` again"
            ) from None
        if self.graph.get_current_count() != count:
            raise MufinError(
                f"{graph} holds {self.graph.get_current_count()} rows and the index beside it {count}; they "
                "are not of one run: run `dvc repro index` again"
            )


def _check_whole(path: Path, size: int) -> None:
    """Raises OSError, in the words of numpy's `tofile`, where less than `size` bytes reached the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())  # some file systems say only here that they are full
    if (written := path.stat().st_size) != size:
        raise OSError(f"{size} requested and {written} written")


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unique(labels: np.ndarray, similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k distinct labels (-1 is none) of each query's rows by similarity: a label's best row comes first."""
    n, width = labels.shape
    order = np.lexsort((labels, -similarity), axis=1)  # ties by label id
    labels, similarity = (
        np.take_along_axis(labels, order, 1),
        np.take_along_axis(similarity, order, 1),
    )
    by_label = np.argsort(labels, 1, kind="stable")
    ranked = np.take_along_axis(labels, by_label, 1)
    first = np.ones((n, width), bool)
    np.put_along_axis(first, by_label[:, 1:], ranked[:, 1:] != ranked[:, :-1], 1)
    first &= labels >= 0
    place = first.cumsum(1) - 1
    keep = first & (place < k)
    row = np.nonzero(keep)[0]
    out, values = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
    out[row, place[keep]], values[row, place[keep]] = labels[keep], similarity[keep]
    return out, values
