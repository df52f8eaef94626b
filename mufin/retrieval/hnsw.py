"""Approximate search with HNSW (hnswlib) that finds as many distinct labels as exact search."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from mufin.ragged import Lists, is_in
from mufin.retrieval.exact import ExactNeighbours, LabelRows, checked
from mufin.retrieval.graph_file import clear_norms, size_by_head
from mufin.retrieval.within import search_within

OVER_FETCH = 7  # rows per wanted label at first; real bags need 4.7 (median), at most 6.7
WIDEST = 64  # fetching more than 1/64 of the rows from the graph costs more than exact search
FEW = 16  # where at most 1/16 of the labels are allowed, exact search among these is faster
ADDED = 2**13  # rows given to the graph at once
FETCHED = 2**22  # rows fetched at once, which takes about 200 MB


class HnswNeighbours:
    """Approximate search for the nearest labels (MUFIN Sec. 3.1, Module II).

    The graph returns rows, and several rows can belong to one label. So a search fetches more rows
    than labels are wanted. Queries that got too few labels fetch twice as many, and so on. When the
    graph would be slower than exact search, exact search answers them.

    Without `graph` a new graph is built with `m` links per node. With one thread the same rows give
    the same bytes; several threads are faster but give other bytes each time. `graph` is a file
    that `save` wrote for the same rows, and that `check_graph` has checked.
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
            capacity = max(len(rows.rows), 1)
            self.graph.init_index(
                capacity, M=m, ef_construction=ef_construction, random_seed=seed + 1
            )
            self._insert(rows, 0)
        else:
            self.graph.load_index(str(graph), max_elements=len(rows.rows))
        self._set_source(rows)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Lists | None = None,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactNeighbours.search`, but the labels are only approximately the nearest.

        Every query gets k distinct labels, or as many as have rows, are allowed and are not
        excluded. Where few are allowed, the search is exact.
        """
        queries = checked(queries, self.source.rows.shape[1])
        if allowed is not None and np.count_nonzero(self.has_rows & allowed) * FEW <= self.present:
            return search_within(self.source, queries, k, excluded, allowed)
        n, step = len(queries), self.at_once(k)
        labels, values = _empty(n, k)
        for start in range(0, n, step):
            rows = np.arange(start, min(start + step, n))
            mine = excluded.take(rows) if excluded is not None else None
            labels[rows], values[rows] = self._search(queries[rows], k, mine, allowed)
        return labels, values

    def at_once(self, k: int) -> int:
        """The queries that are answered at once: together they fall back to exact search."""
        return max(1, FETCHED // max(OVER_FETCH * k, 1))

    def _search(
        self, queries: np.ndarray, k: int, excluded: Lists | None, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        labels, values = _empty(len(queries), k)
        goal, fetch = self._goals(len(queries), k, excluded, allowed), OVER_FETCH * k
        short = np.flatnonzero(goal > 0)  # the queries that still lack labels
        while len(short):
            mine = excluded.take(short) if excluded is not None else None
            found = self._fetch(queries[short], fetch) if fetch <= self._widest(k) else None
            if found is None:  # exact search answers all that are left
                if allowed is None:
                    labels[short], values[short] = self._exact().search(queries[short], k, mine)
                else:
                    rows = self.source
                    labels[short], values[short] = search_within(
                        rows, queries[short], k, mine, allowed
                    )
                break
            if allowed is not None:
                found[0][~allowed[found[0]]] = -1
            if mine is not None:
                found[0][is_in(found[0], mine)] = -1  # filter pairs are no results
            labels[short], values[short] = _unique(*found, k)
            short = short[(labels[short] >= 0).sum(1) < goal[short]]
            fetch *= 2
        return labels, values

    def _widest(self, k: int) -> int:
        """The most rows to fetch per query from the graph.

        It allows the first fetch, and more in a large graph, but never over half of the rows.
        """
        return min(max(OVER_FETCH * k, self.alive // WIDEST), self.alive // 2)

    def _fetch(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels and similarities (n, count) of the nearest rows.

        Returns None if the links of the graph do not reach `count` rows from some query.
        """
        self.graph.set_ef(max(self.ef, count))  # hnswlib requires ef >= count
        try:
            rows, distances = self.graph.knn_query(queries, count)
        except RuntimeError as error:
            # The message of hnswlib and that of its fork differ before these words.
            if "2D array" not in str(error):
                raise
            return None
        return self.source.label[rows.astype(np.int64)], 1 - distances  # hnswlib's 1 - <q, x>

    def _goals(
        self, n: int, k: int, excluded: Lists | None, allowed: np.ndarray | None
    ) -> np.ndarray:
        """(n,) the number of distinct labels that each query can get, at most k."""
        present = self.has_rows if allowed is None else self.has_rows & allowed
        goal = np.full(n, self.present if allowed is None else np.count_nonzero(present))
        if excluded is not None:
            # One integer per (query, label) pair; a pair that is listed twice counts once.
            pairs = np.unique(excluded.rows() * np.int64(self.source.num_labels) + excluded.values)
            rows, ids = np.divmod(pairs, max(self.source.num_labels, 1))
            goal -= np.bincount(rows[present[ids]], minlength=n)
        return np.minimum(goal, k)

    def _set_source(self, rows: LabelRows) -> None:
        self.source = rows
        there = rows.label[rows.label >= 0]
        self.has_rows = np.zeros(rows.num_labels, bool)  # (L,)
        self.has_rows[there] = True
        self.present = int(np.count_nonzero(self.has_rows))  # labels that have rows
        self.alive = len(there)  # rows that were not removed
        self._exact_search: ExactNeighbours | None = None  # over the same rows, made when needed

    def _exact(self) -> ExactNeighbours:
        if self._exact_search is None:
            self._exact_search = ExactNeighbours(self.source, torch.device("cpu"))
        return self._exact_search

    def _insert(self, rows: LabelRows, first: int) -> None:
        """Adds the rows to the graph, with numbers from `first` on."""
        for start in range(0, len(rows.rows), ADDED):
            vectors = checked(rows.rows[start : start + ADDED], self.graph.dim)
            numbers = np.arange(first + start, first + start + len(vectors))
            self.graph.add_items(vectors, numbers, num_threads=self.threads)

    def add(self, rows: LabelRows) -> None:
        """Adds rows, of known labels or of new ones."""
        first = len(self.source.rows)
        self.graph.resize_index(max(first + len(rows.rows), 1))
        self._insert(rows, first)
        self._set_source(self.source.joined(rows))

    def remove(self, labels: np.ndarray) -> None:
        """Removes `labels` from later searches; their nodes stay, as links lead through them."""
        # Not rows that were removed before: hnswlib raises an error for these.
        for row in np.flatnonzero(np.isin(self.source.label, labels) & (self.source.label >= 0)):
            self.graph.mark_deleted(row)
        self._set_source(self.source.without(labels))

    def release(self) -> None:
        """Frees the memory of exact search, which the next query that needs it makes again."""
        self._exact_search = None

    def save(self, folder: Path) -> None:
        """Writes the graph, and a JSON file with `ef`, the shape of the rows and a hash.

        `load_neighbours` checks shape and hash, as hnswlib loads a broken graph without an error
        and can crash in a search. The caller keeps the rows (`source`). Raises OSError if the disk
        is full, which hnswlib does not check.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.graph.save_index(str(folder / "hnsw.bin"))
        _check_whole(folder / "hnsw.bin", size_by_head(folder / "hnsw.bin"))
        clear_norms(folder / "hnsw.bin")
        facts = {
            "ef": self.ef,
            "shape": self.source.rows.shape,
            "sha256": file_hash(folder / "hnsw.bin"),
        }
        (folder / "hnsw.json").write_text(json.dumps(facts) + "\n")


def _check_whole(path: Path, size: int) -> None:
    """Raises OSError, worded as by numpy's `tofile`, if fewer than `size` bytes are on the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())  # some file systems report a full disk only here
    if (written := path.stat().st_size) != size:
        raise OSError(f"{size} requested and {written} written")


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _empty(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) of -1 and similarities (n, k) of -inf."""
    return np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)


def _unique(labels: np.ndarray, similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k distinct labels per query, best first, ties by label id.

    `labels` and `similarity` (n, width) are those of the fetched rows; label -1 is none. A label
    takes the similarity of its best row.
    """
    n, width = labels.shape
    order = np.lexsort((labels, -similarity), axis=1)
    labels = np.take_along_axis(labels, order, 1)
    similarity = np.take_along_axis(similarity, order, 1)
    # `first` (n, width) marks the best row of each label: sorted by label (stable, so still by
    # similarity within a label), a row is the first if the label before it differs.
    by_label = np.argsort(labels, 1, kind="stable")
    ranked = np.take_along_axis(labels, by_label, 1)
    first = np.ones((n, width), bool)
    np.put_along_axis(first, by_label[:, 1:], ranked[:, 1:] != ranked[:, :-1], 1)
    first &= labels >= 0
    place = first.cumsum(1) - 1  # the rank of each label in the result
    keep = first & (place < k)
    row = np.nonzero(keep)[0]
    out, values = _empty(n, k)
    out[row, place[keep]], values[row, place[keep]] = labels[keep], similarity[keep]
    return out, values
