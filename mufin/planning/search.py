"""Costs of the search for nearest labels, exact or by a graph (`retrieval`)."""

from __future__ import annotations

from mufin.planning import machine as rates
from mufin.planning.run import FLOAT, LONG, Run
from mufin.planning.work import Held, Work
from mufin.retrieval.exact import BUDGET, GPU_BUDGET
from mufin.retrieval.graph_file import HEAD
from mufin.retrieval.neighbours import AUTO_EXACT

BOOK = 8 + 40 + 4 + 2 + 48  # bytes per row in hnswlib: pointer, lock, level, visited, id table
MEASURED_DIM, MEASURED_EF, MEASURED_BUILD = 192, 800, 200  # of the rates in `machine`
SCORES = "scores of the search"


def searched(run: Run, kind: str, labels: float | None = None, centroids: bool = True) -> float:
    """Rows that are searched: bag rows and centroids of the labels, or a vector per label.

    `kind` is retrieve.vectors (`retrieval.augmented`).
    """
    labels = run.sizes.labels if labels is None else labels
    if kind != "bag":
        return labels
    return labels * (run.network.rows(run.sizes.label_pictures) + centroids)


def is_exact(run: Run, search: str, rows: float) -> bool:
    """Whether `retrieval.neighbours.build_neighbours` searches by comparing with all rows."""
    return search == "exact" or (search == "auto" and (run.machine.has_gpu or rows <= AUTO_EXACT))


def graph_file(rows: float, dim: int, m: int) -> float:
    """Bytes of the file of a graph of HNSW (`retrieval.graph_file`).

    A row is in the layer above with probability 1 / m, so it has 1 / (m - 1) lists of upper layers
    on average.
    """
    row = 4 + 8 * m + 4 * dim + 8
    upper = 4 + 4 * (m + 1) / (m - 1)
    return HEAD.itemsize + rows * (row + 4 + upper)


def search_held(
    run: Run, what: str, search: str, rows: float, m: int, others: float = 0.0
) -> list[Held]:
    """What a search holds beside the rows it was given: a sorted copy, or the graph.

    `others` are the bytes that the GPU holds meanwhile for other things.
    """
    dim, size = run.network.joint, rows * run.network.joint * float(FLOAT)
    setting = "retrieve.vectors, encoder.dim"
    if not is_exact(run, search, rows):
        graph = graph_file(rows, dim, m) + rows * BOOK
        return [Held(f"graph of {what}", graph, f"{setting}, retrieve.hnsw.m")]
    scores, on_device = float(BUDGET), run.machine.has_gpu
    if on_device:
        scores = min(GPU_BUDGET, max(run.machine.gpu - size - others, 0) / 16)
    scores = 2.0 * FLOAT * min(scores, run.splits * (rows + run.sizes.labels))
    return [
        Held(f"sorted {what}", size, setting, True),
        Held(SCORES, scores, on_device=True),
        Held("order of rows", rows * 5.0 * LONG),
    ]


def search_work(
    run: Run,
    what: str,
    search: str,
    rows: float,
    queries: float,
    ef: tuple[int, int],
    threads: int | str = 1,
) -> list[Work]:
    """Building and asking a search; `ef` are ef_construction and ef of HNSW, which `threads` build.

    A number of threads above 1 counts as all cores.
    """
    dim = run.network.joint
    if is_exact(run, search, rows):
        flop, moved = 2.0 * rows * dim * queries, 3.0 * FLOAT * rows * queries
        return [Work(what=what, flop=flop, full=True, moved=moved, shared=True)]
    # A row or a query looks at ef candidates, whose vectors it reads
    build = rows / rates.GRAPH_ROWS * dim / MEASURED_DIM * ef[0] / MEASURED_BUILD
    ask = queries / rates.GRAPH_QUERIES * dim / MEASURED_DIM * ef[1] / MEASURED_EF
    return [
        Work(what=f"build the graph of {what}", core_seconds=build, one_core=threads == 1),
        Work(what=f"ask the graph of {what}", core_seconds=ask, one_core=True, shared=True),
    ]
