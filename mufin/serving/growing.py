"""Search over the vectors of labels that are added, replaced and removed all the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mufin.errors import MufinError
from mufin.retrieval.exact import checked
from mufin.serving.best_labels import Found, best, best_distinct, merged, none

OVER_FETCH = 7  # rows per wanted label that the graph is asked for at first
WIDEST = 64  # fetching more than 1/64 of the rows from the graph costs more than exact search
FEW = 16  # where at most 1/16 of the labels are allowed, exact search among these is faster
BURST = 10  # times `exact_up_to` rows may wait for the graph before `put` waits for it
QUERIES = 256  # searched at once
BLOCK = 2**16  # rows of one matrix product
SEED = 1  # of the levels of the graph


class GrowingRows:
    """The labels with the largest inner products, over rows that change all the time.

    The similarity of a label is the maximum over its rows (MUFIN Sec. 3.1, Module II). Rows are
    appended to one array, the rows of a label together (a segment), and marked when they die. The
    newest `exact_up_to` rows are searched by a matrix product, the others with HNSW.

    A row takes a fraction of a millisecond on its way into the graph. So `put` leaves new rows
    outside, where the search is exact, and `settle` moves some of them; call it when there is
    nothing else to do. Only where 10 times `exact_up_to` rows wait does `put` move as many as it
    adds. All methods are for one thread.
    """

    def __init__(
        self,
        dim: int,
        m: int = 16,  # links per node of the graph
        ef_construction: int = 100,  # nodes that an insertion looks at
        ef: int = 200,  # nodes that a search looks at
        exact_up_to: int = 20_000,  # rows
        threads: int = 1,  # of the graph; several are faster, and give other graphs each time
    ):
        self.dim, self.m, self.ef_construction, self.ef = dim, m, ef_construction, ef
        self.exact_up_to, self.threads = exact_up_to, threads
        self._reset()

    def _reset(self) -> None:
        self.rows = Column(np.empty((0, self.dim), np.float32))
        self.starts = Column(np.empty(0, np.int64))  # the first row of each segment
        self.labels = Column(np.empty(0, np.int64))  # of each segment, -1 for a dead one
        self.segment: dict[int, int] = {}  # of each label that has rows
        self.alive = 0  # rows
        self.graph: Any = None  # an hnswlib.Index, whose nodes have the numbers of the rows
        self.placed = 0  # the first so many segments are in the graph, unless they died before
        self.capacity = self.nodes = self.dead_nodes = 0  # of the graph

    def __len__(self) -> int:
        """The number of labels that have rows."""
        return len(self.segment)

    @property
    def waiting(self) -> int:
        """Rows outside of the graph."""
        return self.rows.used - self._first(self.placed)

    def put(self, label: int, rows: np.ndarray) -> None:
        """Replaces the rows of a label by `rows` (r, dim); the label may be new, and r may be 0.

        Raises MufinError for rows of another width, with NaN or infinity, or a negative label.
        """
        if label < 0:
            raise MufinError(f"the label is {label}; give a whole number from 0 on")
        if rows.ndim != 2 or rows.shape[1] != self.dim or not np.isfinite(rows).all():
            raise MufinError(
                f"the rows of label {label} have shape {rows.shape}; give finite numbers of shape "
                f"(rows, {self.dim})"
            )
        self.remove(label)
        if not len(rows):
            return
        if self.graph is None and self.rows.used + len(rows) > len(self.rows.data):
            self.compact()  # where the array would grow, copying the living rows costs no more
        self.segment[int(label)] = self.labels.used
        self.labels.append(np.array([label]))
        self.starts.append(np.array([self.rows.used]))
        self.rows.append(rows)
        self.alive += len(rows)
        if self.waiting > BURST * self.exact_up_to:
            self.settle(2 * len(rows))

    def remove(self, label: int) -> None:
        """Removes the rows of a label, if it has any."""
        if (number := self.segment.pop(int(label), None)) is None:
            return
        first, end = self._first(number), self._first(number + 1)
        self.labels.data[number] = -1
        self.alive -= end - first
        if self.graph is not None and number < self.placed:
            for row in range(first, end):
                self.graph.mark_deleted(row)
            self.dead_nodes += end - first

    def settle(self, rows: int = 64) -> int:
        """Moves about `rows` waiting rows into the graph, if over `exact_up_to` wait.

        Returns how many more should be moved.
        """
        excess = self.waiting - self.exact_up_to
        if excess > 0:
            first = self._first(self.placed)
            end = self.placed
            while end < self.labels.used and self._first(end) - first < min(rows, excess):
                end += 1
            self._insert(end)
        return max(self.waiting - self.exact_up_to, 0)

    def compact(self) -> bool:
        """Frees the memory of the dead rows and the graph, if over half of the rows are dead.

        All rows then wait for the graph, where the search is exact; `settle` builds it again.
        Returns whether there was anything to free.
        """
        if self.alive * 2 >= self.rows.used:
            return False
        kept = np.flatnonzero(self.labels.view >= 0)
        numbers, sizes = self._numbers(kept), self._sizes()[kept]
        rows, labels = self.rows.view[numbers], self.labels.view[kept]
        self._reset()
        self.rows, self.labels = Column(rows), Column(labels)
        self.starts = Column(np.cumsum(sizes) - sizes)
        self.segment = {label: number for number, label in enumerate(labels.tolist())}
        self.alive = len(rows)
        return True

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """(n, dim) queries -> labels (n, k) int64 and similarities (n, k) float32, best first.

        Every query gets k distinct labels, or as many as have rows and are allowed; -1 and -inf
        fill the row. With `allowed` (L,) bool no query gets a label where it is false; it must
        cover all labels that have rows. Ties are broken by label id. The search is approximate
        where rows are in the graph and over 1/16 of the labels there are allowed, else exact.
        Raises MufinError if the queries have another width or are not finite.
        """
        queries = checked(queries, self.dim)
        chosen = self._chosen(allowed)
        found = none(len(queries), k)
        if k == 0 or not chosen.any():
            return found
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            found[0][part], found[1][part] = self._search(queries[part], k, chosen)
        return found

    def _search(self, queries: np.ndarray, k: int, chosen: np.ndarray) -> Found:
        placed = np.arange(len(chosen)) < self.placed
        in_graph = np.count_nonzero(self.labels.view[: self.placed] >= 0)
        if np.count_nonzero(chosen & placed) * FEW <= in_graph:
            return self._exact(queries, k, chosen)
        found = self._approximate(queries, k, chosen & placed)
        return merged(found, self._exact(queries, k, chosen & ~placed), k)

    def _approximate(self, queries: np.ndarray, k: int, chosen: np.ndarray) -> Found:
        """The best chosen segments of those in the graph.

        A query that gets too few labels fetches twice as many rows, and so on, until exact search
        is faster and answers it.
        """
        labels, values = none(len(queries), k)
        goal, nodes = min(k, np.count_nonzero(chosen)), self.nodes - self.dead_nodes
        fetch, widest = OVER_FETCH * k, min(max(OVER_FETCH * k, nodes // WIDEST), nodes // 2)
        short = np.arange(len(queries))  # the queries that still lack labels
        while len(short) and fetch <= widest:
            self.graph.set_ef(max(self.ef, fetch))  # hnswlib requires ef >= the rows fetched
            try:
                rows, distances = self.graph.knn_query(queries[short], fetch, self.threads)
            except RuntimeError as error:  # its links do not lead to so many rows
                if "2D array" not in str(error):
                    raise
                break
            segments = np.searchsorted(self.starts.view, rows.astype(np.int64), side="right") - 1
            similarity = np.where(chosen[segments], 1 - distances, -np.inf).astype(np.float32)
            labels[short], values[short] = best(self.labels.view[segments], similarity, k)
            short = short[(labels[short] >= 0).sum(1) < goal]
            fetch *= 2
        if len(short):
            labels[short], values[short] = self._exact(queries[short], k, chosen)
        return labels, values

    def _exact(self, queries: np.ndarray, k: int, chosen: np.ndarray) -> Found:
        """The best chosen segments, by matrix products over blocks of rows."""
        found = none(len(queries), k)
        for segments in self._blocks(np.flatnonzero(chosen)):
            first, last = segments[0], segments[-1] + 1
            rows = self.rows.view[self._first(first) : self._first(last)]
            if self._sizes()[segments].sum() * 2 >= len(rows):  # then no row is copied
                starts = self.starts.view[first:last] - self._first(first)
                scores = np.maximum.reduceat(queries @ rows.T, starts, axis=1)[:, segments - first]
            else:
                rows = self.rows.view[self._numbers(segments)]
                sizes = self._sizes()[segments]
                scores = np.maximum.reduceat(queries @ rows.T, np.cumsum(sizes) - sizes, axis=1)
            labels = np.broadcast_to(self.labels.view[segments], scores.shape)
            found = merged(found, best_distinct(labels, scores, k), k)
        return found

    def _blocks(self, segments: np.ndarray) -> Iterator[np.ndarray]:
        """These segments in parts that span about `BLOCK` rows."""
        if len(segments):
            block = self.starts.view[segments] // BLOCK
            yield from np.split(segments, np.flatnonzero(np.diff(block)) + 1)

    def _chosen(self, allowed: np.ndarray | None) -> np.ndarray:
        """(segments,) bool: alive and allowed."""
        labels = self.labels.view
        chosen = labels >= 0
        if allowed is None:
            return chosen
        if len(labels) and labels.max() >= len(allowed):
            raise MufinError(
                f"{len(allowed)} labels are allowed or not, and label {labels.max()} has rows; say "
                "it of all labels"
            )
        return chosen & allowed[np.maximum(labels, 0)] if len(labels) else chosen

    def _insert(self, end: int) -> None:
        """Inserts the living segments from `placed` to `end` into the graph."""
        living = np.arange(self.placed, end)[self.labels.view[self.placed : end] >= 0]
        numbers = self._numbers(living)
        self.placed = end
        if not len(numbers):
            return
        if self.nodes + len(numbers) > self.capacity:
            self._widen(self.nodes + len(numbers))
        self.graph.add_items(self.rows.view[numbers], numbers, num_threads=self.threads)
        self.nodes += len(numbers)

    def _widen(self, nodes: int) -> None:
        """Makes room in the graph for so many nodes, and for more to come."""
        import hnswlib

        self.capacity = max(2 * self.capacity, nodes, 1024)
        if self.graph is None:
            self.graph = hnswlib.Index("ip", self.dim)
            self.graph.init_index(
                self.capacity, M=self.m, ef_construction=self.ef_construction, random_seed=SEED
            )
        else:
            self.graph.resize_index(self.capacity)

    def _first(self, segment: int) -> int:
        """The first row of a segment; of the one after the last, the number of rows."""
        return self.rows.used if segment >= self.labels.used else int(self.starts.data[segment])

    def _sizes(self) -> np.ndarray:
        """(segments,) the number of rows of each, dead or alive."""
        return np.diff(self.starts.view, append=self.rows.used)

    def _numbers(self, segments: np.ndarray) -> np.ndarray:
        """The numbers of the rows of these segments."""
        sizes = self._sizes()[segments]
        shift = self.starts.view[segments] - (np.cumsum(sizes) - sizes)
        return np.arange(sizes.sum()) + np.repeat(shift, sizes)


class Column:
    """An array that grows at its end; it doubles, so that appending takes constant time."""

    def __init__(self, values: np.ndarray):
        self.data, self.used = values, len(values)

    @property
    def view(self) -> np.ndarray:
        """What was appended."""
        return self.data[: self.used]

    def append(self, values: np.ndarray) -> None:
        end = self.used + len(values)
        if end > len(self.data):
            grown = np.empty((max(end, 2 * self.used), *self.data.shape[1:]), self.data.dtype)
            grown[: self.used] = self.view
            self.data = grown
        self.data[self.used : end] = values
        self.used = end
