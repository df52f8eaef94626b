"""Augmented retrieval: building, queries per second, recall of the nearest labels, and memory.

python -m benchmarks.search --labels 350000 --out benchmarks/results/search.json

Exact search and HNSW beside hnswlib and FAISS with a fixed over-fetch: the rows of `over_fetch`
times as many labels as are wanted, of which the first different labels are the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from benchmarks.timing import interleaved, tell
from mufin import devices, runtime
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours

Search = Callable[[np.ndarray, int], np.ndarray]  # queries (n, D), k -> label ids (n, k), -1: none


class Graph(NamedTuple):
    """The settings of HNSW, and the rows that the fixed ways fetch per label."""

    m: int
    ef_construction: int
    ef: int
    over_fetch: int
    threads: int


def main(
    labels: int = 20_000,
    rows: int = 6,
    dim: int = 192,
    queries: int = 256,
    k: int = 100,
    m: int = 16,
    ef_construction: int = 200,
    ef: int = 800,
    over_fetch: int = 7,
    repeats: int = 3,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """`labels` labels of `rows` rows each around a centre of their own, the centres in clusters."""
    device = devices.device()
    graph = Graph(m, ef_construction, ef, over_fetch, runtime.workers())
    source, asked = _rows(labels, rows, dim, queries)
    ways: dict[str, Search] = {}
    figures: dict[str, dict[str, float]] = {}
    for name, build in _builders(source, graph, device).items():
        before, start = _resident(), time.perf_counter()
        ways[name] = build()
        figures[name] = {"build_s": time.perf_counter() - start}
        figures[name]["memory_mb"] = max(_resident() - before, 0)
    best = ways["exact"](asked, k)
    for name, way in ways.items():
        found = best if name == "exact" else way(asked, k)
        figures[name] |= _quality(best, found, k)
    seconds = interleaved({n: lambda w=way: w(asked, k) for n, way in ways.items()}, repeats)
    for name, each in seconds.items():
        figures[name]["queries_per_s"] = queries / float(np.median(each))
    tell(
        f"{labels} labels of {rows} x {dim} ({source.rows.nbytes / 2**20:.0f} MB, not counted "
        f"below), {queries} queries, {k} labels each, {graph.threads} threads, {device}",
        figures,
        out,
    )


def _rows(labels: int, rows: int, dim: int, queries: int) -> tuple[LabelRows, np.ndarray]:
    rng = np.random.default_rng(0)
    clusters = labels // 50 + 1
    centres = _near(_unit(_normal(rng, clusters, dim))[rng.integers(clusters, size=labels)], rng)
    points = np.empty((labels * rows, dim), np.float32)
    for start in range(0, labels, 2**14):  # a copy of 2.1 million rows would fill the memory
        part = np.repeat(centres[start : start + 2**14], rows, 0)
        points[start * rows : start * rows + len(part)] = _near(part, rng, 0.5)
    asked = _near(centres[rng.integers(labels, size=queries)], rng)
    return LabelRows(points, np.repeat(np.arange(labels), rows), labels), asked


def _normal(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return rng.standard_normal((count, dim), np.float32)


def _near(centres: np.ndarray, rng: np.random.Generator, spread: float = 0.7) -> np.ndarray:
    return _unit(centres + spread * _unit(_normal(rng, *centres.shape)))


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _builders(
    source: LabelRows, graph: Graph, device: torch.device
) -> dict[str, Callable[[], Search]]:
    ways: dict[str, Callable[[], Search]] = {
        "exact": lambda: _exact(source, device),
        "hnsw": lambda: _hnsw(source, graph),
        f"hnswlib, {graph.over_fetch} rows per label": lambda: _hnswlib(source, graph),
    }
    try:
        import faiss  # noqa: F401
    except ImportError:
        print("FAISS is left out, as it is not installed (the extra `export` has it)")
        return ways
    return ways | {f"FAISS, {graph.over_fetch} rows per label": lambda: _faiss(source, graph)}


def _exact(source: LabelRows, device: torch.device) -> Search:
    search = ExactNeighbours(source, device)
    search.arranged()
    return lambda queries, k: search.search(queries, k)[0]


def _hnsw(source: LabelRows, graph: Graph) -> Search:
    search = HnswNeighbours(source, graph.m, graph.ef_construction, graph.ef, threads=graph.threads)
    return lambda queries, k: search.search(queries, k)[0]


def _hnswlib(source: LabelRows, graph: Graph) -> Search:
    import hnswlib

    index = hnswlib.Index("ip", source.rows.shape[1])
    index.init_index(len(source.rows), M=graph.m, ef_construction=graph.ef_construction)
    index.add_items(source.rows, num_threads=graph.threads)

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        count = min(graph.over_fetch * k, len(source.rows))
        index.set_ef(max(graph.ef, count))
        return _first(source, index.knn_query(queries, count)[0].astype(np.int64), k)

    return search


def _faiss(source: LabelRows, graph: Graph) -> Search:
    import faiss

    faiss.omp_set_num_threads(graph.threads)
    index = faiss.IndexHNSWFlat(source.rows.shape[1], graph.m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = graph.ef_construction
    index.add(source.rows)

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        count = min(graph.over_fetch * k, len(source.rows))
        index.hnsw.efSearch = max(graph.ef, count)
        return _first(source, index.search(queries, count)[1], k)

    return search


def _first(source: LabelRows, rows: np.ndarray, k: int) -> np.ndarray:
    """(n, k) the first k different labels of the `rows` (n, fetched), nearest first."""
    out = np.full((len(rows), k), -1, np.int64)
    for answer, found in zip(out, rows):
        labels = list(dict.fromkeys(source.label[found[found >= 0]].tolist()))[:k]
        answer[: len(labels)] = labels
    return out


def _quality(best: np.ndarray, found: np.ndarray, k: int) -> dict[str, float]:
    """The share of the nearest labels that is found, and of queries that got too few labels."""
    hits = [len(set(a.tolist()) & set(b[b >= 0].tolist())) / k for a, b in zip(best, found)]
    return {"recall": float(np.mean(hits)), "short": float((found < 0).any(1).mean())}


def _resident() -> float:
    """MB of memory that this process has in use."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    typer.run(main)
