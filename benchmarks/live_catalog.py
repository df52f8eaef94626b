"""Products added while the server runs: commits and vectors per second, size and memory.

python -m benchmarks.live_catalog --out benchmarks/results/live_catalog.json

The products and vectors are random, so it needs no run of the pipeline. `commit` rows: the store
(mufin/serving/store.py), every transaction on the disk before the next one starts. `search` rows:
the vectors of added labels (mufin/serving/growing.py), by one thread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer

from benchmarks.timing import spread, tell
from mufin.serving.growing import GrowingRows
from mufin.serving.live_product import LiveProduct
from mufin.serving.store import ProductStore

BATCH = 100  # products per transaction
PICTURE = 50_000  # bytes
K = 10  # answers
LATENT = 16  # dimensions that the vectors of products differ in, apart from noise
Row = dict[str, float]


def main(
    labels: int = 50_000,
    dim: int = 192,
    rows: int = 4,
    folder: Annotated[Path | None, typer.Option(help="on the disk to measure")] = None,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """`labels` products, each with `rows` vectors of `dim` dimensions."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        figures = dict(commits(Path(place) / "store.sqlite", labels))
    figures |= dict(searches(labels, dim, rows))
    tell(f"{labels} products, {rows} vectors of {dim} dimensions per product", figures, out)


def commits(path: Path, count: int) -> Iterator[tuple[str, Row]]:
    """Figures of the store."""
    products = [invented(i) for i in range(count)]
    pictured = [
        LiveProduct(f"P{i}", pictures=(np.random.default_rng(i).bytes(PICTURE),))
        for i in range(max(count // 20, 1))
    ]
    with ProductStore(path) as store:
        for name, some in (("new", products), ("changed", products), ("pictures", pictured)):
            yield f"commit: {name}, {BATCH} per transaction", in_batches(store, some)
        few = products[: max(count // 50, 1)]
        seconds = took(lambda: [store.upsert([product]) for product in few])
        yield "commit: one per transaction", {"products_per_second": len(few) / seconds}
    seconds = took(lambda: ProductStore(path).close())
    yield "commit: open and check", {"seconds": seconds, "megabytes": megabytes(path)}
    with ProductStore(path) as store:
        store.delete([product.uid for product in pictured])
        before, seconds = megabytes(path), took(store.compact)
        yield (
            "commit: compact after deletions",
            {
                "seconds": seconds,
                "megabytes_before": before,
                "megabytes_after": megabytes(path),
            },
        )


def searches(count: int, dim: int, rows: int) -> Iterator[tuple[str, Row]]:
    """Figures of the search."""
    vectors = unit_vectors(count, rows, dim)
    rng = np.random.default_rng(1)
    asked = vectors[rng.integers(count, size=200), 0]
    asked = asked + 0.1 * rng.normal(size=asked.shape).astype(np.float32) / np.sqrt(dim)
    found, start = GrowingRows(dim), resident()
    seconds = took(lambda: [found.put(label, vectors[label]) for label in range(count)])
    yield "search: put, new labels", {"labels_per_second": count / seconds}
    yield "search: query, no row in the graph", latency(found, asked)
    exact, before = found.search(asked, K)[0], found.waiting
    seconds = took(lambda: settle_all(found))
    if moved := before - found.waiting:
        yield "search: settle", {"rows_per_second": moved / seconds, "rows": moved}
    near = found.search(asked, K)[0]
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(near, exact)])
    yield "search: query, rows in the graph", latency(found, asked) | {"recall": float(recall)}
    some = max(count // 10, 1)
    seconds = took(lambda: [found.put(label, vectors[label]) for label in range(some)])
    yield "search: put, known labels", {"labels_per_second": some / seconds}
    full = resident() - start
    for label in range(count * 9 // 10):
        found.remove(label)
    marked = resident() - start
    seconds = took(found.compact)
    yield (
        "search: memory, nine tenths removed",
        {
            "seconds": seconds,
            "megabytes_full": full,
            "megabytes_before": marked,
            "megabytes_after": resident() - start,
        },
    )


def settle_all(found: GrowingRows) -> None:
    while found.settle():
        pass


def invented(number: int) -> LiveProduct:
    """A product without pictures."""
    return LiveProduct(
        f"B{number:09d}",
        f"Mug number {number}, small, with a handle",
        ("Home & Gifts", "Mugs"),
        {"price": number % 100, "colour": "red", "new": True},
    )


def unit_vectors(count: int, rows: int, dim: int) -> np.ndarray:
    """(count, rows, dim) float32; those of a label are near to each other.

    They lie near a space of `LATENT` dimensions, as learnt vectors do. Where all `dim` dimensions
    are independent, neighbours are hardly nearer than other vectors, and HNSW finds fewer of them.
    """
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(count, rows, LATENT)).astype(np.float32) / 2
    latent += rng.normal(size=(count, 1, LATENT)).astype(np.float32)
    vectors = latent @ rng.normal(size=(LATENT, dim)).astype(np.float32)
    vectors += 0.5 * rng.normal(size=vectors.shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def in_batches(store: ProductStore, products: list[LiveProduct]) -> Row:
    starts = range(0, len(products), BATCH)
    seconds = took(lambda: [store.upsert(products[at : at + BATCH]) for at in starts])
    return {"products_per_second": len(products) / seconds}


def latency(found: GrowingRows, asked: np.ndarray) -> Row:
    """Milliseconds of searches, one query at a time."""
    return spread([took(lambda q=query[None]: found.search(q, K)) for query in asked])


def took(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def megabytes(path: Path) -> float:
    """Of the store and its log."""
    return sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*")) / 1e6


def resident() -> float:
    """Megabytes of memory of this process."""
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    typer.run(main)
