"""Relations from interactions: products of the same baskets, of all times or period by period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.tables import batch_count, table_batches
from mufin.corpus.catalog import Catalog, noted
from mufin.corpus.cooccurrence import Settings, related_by_baskets
from mufin.corpus.matching import Unknown
from mufin.corpus.relations import Relations, of_scores
from mufin.errors import MufinError
from mufin.progress import progress

if TYPE_CHECKING:
    import polars as pl

UNKNOWN, NEAR = "interactions of unknown products", "ids of interactions that nearly match one"
GONE = "interactions of dropped products"
ROWS = 500_000  # interactions at a time
RESOLVED = pa.schema(
    [
        ("item", pa.int32()),
        ("basket", pa.int64()),
        ("time", pa.float64()),
        ("weight", pa.float32()),
    ]
)
Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # item, basket, time, weight


def resolved(raw: Path, catalog: Catalog, scratch: Path) -> Catalog:
    """Writes the interactions with product numbers in place of ids to the new file `scratch`.

    Returns the catalog with counts of the interactions that name no product of it.
    """
    unknown, gone = Unknown(catalog.source.texts), 0
    columns = ["item", "basket", "time", "weight"]
    with pq.ParquetWriter(scratch, RESOLVED, compression="zstd") as writer:
        path = raw / "interactions.parquet"
        batches = table_batches(path, "interactions", columns, ROWS)
        total = batch_count(path, ROWS)
        for batch in progress(batches, "interactions", f"batches of {ROWS}", total):
            ids = _ids(batch)
            number = catalog.source.find(ids)
            unknown.add(ids.filter(number < 0))
            item = np.where(number >= 0, catalog.of_id[number], -1)
            there = item >= 0
            gone += int((~there & (number >= 0)).sum())
            kept = {"item": item[there].astype(np.int32)}
            for name in columns[1:]:
                kept[name] = batch[name].to_numpy(zero_copy_only=False)[there]
            writer.write_table(pa.table(kept, schema=RESOLVED))
    dropped = catalog.dropped | {UNKNOWN: unknown.count, GONE: gone}
    return noted(replace(catalog, dropped=dropped), unknown, UNKNOWN, NEAR)


def batches_of(path: Path, period: tuple[float, float] | None = None) -> Iterator[Batch]:
    """The interactions of start <= time < end for a `period` (start, end); None: all of them.

    `path` is a file of `resolved`. A time is NaN where there is none.
    """
    for batch in pq.ParquetFile(path).iter_batches(ROWS):
        item, basket, time, weight = (c.to_numpy(zero_copy_only=False) for c in batch.columns)
        keep = np.ones(len(item), bool)
        if period is not None:
            keep = (time >= period[0]) & (time < period[1])
        if keep.any():
            yield item[keep], basket[keep], time[keep], weight[keep]


def times_of(raw: Path) -> tuple[np.ndarray, int]:
    """The times of all interactions that have one, also of unknown products; how many have none.

    Takes 8 bytes per interaction.
    """
    path, filled = raw / "interactions.parquet", 0
    times = np.empty(pq.read_metadata(path).num_rows)
    for batch in table_batches(path, "interactions", ["time"], ROWS):
        time = batch["time"].to_numpy(zero_copy_only=False)
        time = time[np.isfinite(time)]
        times[filled : filled + len(time)] = time
        filled += len(time)
    return times[:filled], len(times) - filled


def relations_of(
    batches: Iterator[Batch], products: int, settings: Settings, scratch: Path, threads: int
) -> tuple[Relations, dict[str, int]]:
    """The relations of `products` products by their baskets, and what was left out, by reason."""
    scratch.mkdir()
    lists, scores, dropped = related_by_baskets(batches, products, settings, scratch, threads)
    scratch.rmdir()
    return of_scores(lists, scores), dropped


def cuts(times: np.ndarray, test: float, valid: float) -> tuple[float, float]:
    """The times at which valid and test begin; infinite where a share is 0.

    `test` is the share of the latest `times` (n,), `valid` that of the others. Times of one instant
    are on one side: the cut is between the two instants whose share is nearest. `times` is
    reordered. Raises MufinError if all times are equal.
    """
    if len(times) and times.min() == times.max():
        raise MufinError(
            f"all {len(times)} interactions have the same time, so curate.split: time cannot "
            "divide them; look at download.interactions.time, or set curate.split to cold or warm"
        )
    start_of_test = _cut(times, test)
    return min(_cut(times[times < start_of_test], valid), start_of_test), start_of_test


def _cut(times: np.ndarray, share: float) -> float:
    """The first time of the latest `share` of the times."""
    wanted = round(share * len(times))
    if not wanted:
        return np.inf
    times.partition(len(times) - wanted)
    at = times[len(times) - wanted]
    later = times[times > at]
    with_ties = int((times >= at).sum())
    # The instant of the cut stays before it where this is nearer to the share, or where nothing
    # would be left before it.
    nearer = wanted - len(later) < with_ties - wanted
    if with_ties == len(times) and not len(later):
        return np.inf  # one instant: it cannot be divided
    return float(later.min() if len(later) and (nearer or with_ties == len(times)) else at)


def _ids(batch: pa.RecordBatch) -> pl.Series:
    import polars as pl

    return pl.Series("item", batch.column("item")).fill_null("")
