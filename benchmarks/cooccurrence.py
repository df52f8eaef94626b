"""Related products from generated baskets: rows per second and peak memory.

python -m benchmarks.cooccurrence --rows 100000000 --out benchmarks/results/cooccurrence.json

Products are as popular as Zipf's law says, the number of products per basket is log-normal. The
rows are written to a Parquet file first, which is not measured.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from mufin.catalog_params import CoOccurrence
from mufin.corpus.baskets import Batch
from mufin.corpus.cooccurrence import related_by_baskets

BASKETS = 200_000  # generated at once
COLUMNS = ("item", "basket", "time", "weight")


def main(
    rows: int = 1_000_000,
    products: int = 1_000_000,
    mean: float = 8.0,
    sigma: float = 1.0,
    zipf: float = 1.0,
    min_support: float = 2.0,
    window: Annotated[float | None, typer.Option()] = None,
    half_life: Annotated[float | None, typer.Option()] = None,
    direction: str = "both",
    threads: int = 2,
    folder: Annotated[Path | None, typer.Option()] = None,
    beside: Annotated[str, typer.Option(help="what else ran on the machine")] = "nothing",
    out: Annotated[Path | None, typer.Option()] = None,
):
    """`rows` rows of about `mean` per basket; in `folder`, which needs 50 bytes per row."""
    how = CoOccurrence(
        score="cosine",
        min_support=min_support,
        per_product=30,
        per_basket=100,
        window=window,
        direction=direction,  # type: ignore[arg-type]
        half_life=half_life,
    )
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path, scratch = Path(name) / "rows.parquet", Path(name) / "scratch"
        scratch.mkdir()
        written = _generate(path, rows, products, mean, sigma, zipf)
        start, cpu = time.perf_counter(), time.process_time()
        related, _, counts = related_by_baskets(_batches(path), products, how, scratch, threads)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    figures = {
        "rows": written,
        "products": products,
        "baskets_mean_size": mean,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_per_second": round(written / seconds),
        "peak_memory_gb": round(_peak() / 1e9, 3),
        "relations": len(related.values),
        "products_with_relations": int((related.lengths() > 0).sum()),
        "threads": threads,
    }
    for what, value in (figures | counts).items():
        print(f"  {what:36s}{value:,}")
    if out:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        facts = {
            "question": "co-occurrence of generated baskets: rows per second and peak memory",
            "machine": machine | {"beside": beside},
            "settings": asdict(how) | {"sigma": sigma, "zipf": zipf},
            "figures": figures,
            "left_out": counts,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=2) + "\n")


def _generate(path: Path, rows: int, products: int, mean: float, sigma: float, zipf: float) -> int:
    """Write at least `rows` rows of distinct products per basket in most cases; their number."""
    rng = np.random.default_rng(0)
    popular = np.cumsum(np.arange(1, products + 1.0) ** -zipf)
    number = rng.permutation(products).astype(np.int32)  # the popular ones are not neighbours
    written = basket = 0
    types = (pa.int32(), pa.int64(), pa.float64(), pa.float32())
    with pq.ParquetWriter(path, pa.schema(list(zip(COLUMNS, types)))) as writer:
        while written < rows:
            wanted = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, BASKETS)
            sizes = np.maximum(wanted.round().astype(np.int64), 1)
            count = int(sizes.sum())
            drawn = np.searchsorted(popular, rng.random(count) * popular[-1])
            baskets = np.repeat(np.arange(basket, basket + BASKETS), sizes)
            times = np.repeat(rng.uniform(1.6e9, 1.7e9, BASKETS).round(), sizes)
            times += rng.integers(0, 3600, count)
            columns = (number[drawn], baskets, times, np.ones(count, np.float32))
            writer.write_table(pa.table(dict(zip(COLUMNS, columns)), schema=writer.schema))
            written, basket = written + count, basket + BASKETS
    return written


def _batches(path: Path) -> Iterator[Batch]:
    for batch in pq.ParquetFile(path).iter_batches(2**17, columns=list(COLUMNS)):
        items, baskets, times, weights = (batch[name].to_numpy() for name in COLUMNS)
        yield items, baskets, times, weights


def _peak() -> int:
    """Bytes; files that are mapped into memory count too."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    typer.run(main)
