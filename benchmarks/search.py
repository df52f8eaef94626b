"""Augmented retrieval by exact search and by HNSW: milliseconds per query, recall of 100 labels.

python -m benchmarks.search --labels 20000 --out benchmarks/results/search.json
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.timing import interleaved, tell
from mufin import devices, runtime
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours


def main(
    labels: int = 20_000,
    rows: int = 6,
    dim: int = 192,
    queries: int = 256,
    k: int = 100,
    m: int = 16,
    ef_construction: int = 200,
    ef: int = 800,
    repeats: int = 3,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """`labels` labels of `rows` rows each around a centre of their own, the centres in clusters."""
    device, rng = devices.device(), np.random.default_rng(0)
    centres = _unit(rng.normal(size=(labels // 50 + 1, dim)))[
        rng.integers(labels // 50 + 1, size=labels)
    ]
    centres = _unit(centres + 0.7 * _unit(rng.normal(size=(labels, dim))))
    points = _unit(np.repeat(centres, rows, 0) + 0.5 * _unit(rng.normal(size=(labels * rows, dim))))
    source = LabelRows(points, np.repeat(np.arange(labels), rows), labels)
    asked = _unit(
        centres[rng.integers(labels, size=queries)] + 0.7 * _unit(rng.normal(size=(queries, dim)))
    )
    ways, built = {}, {}
    for kind in ("exact", "hnsw"):
        start = time.perf_counter()
        ways[kind] = build_neighbours(
            source,
            kind,
            device=device,
            m=m,
            ef_construction=ef_construction,
            ef=ef,
            threads=runtime.workers(),
        )
        built[kind] = time.perf_counter() - start
    found = {kind: way.search(asked, k)[0] for kind, way in ways.items()}
    recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found["exact"], found["hnsw"])])
    seconds = interleaved(
        {kind: lambda way=way: way.search(asked, k) for kind, way in ways.items()}, repeats
    )
    tell(
        f"{labels} labels of {rows} x {dim}, {queries} queries, {k} labels each, {device}",
        {
            kind: {
                "ms_per_query": 1000 * float(np.median(s)) / queries,
                "build_s": built[kind],
                "recall": 1.0 if kind == "exact" else float(recall),
            }
            for kind, s in seconds.items()
        },
        out,
    )


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    typer.run(main)
