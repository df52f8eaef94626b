"""The further texts of products: cleaned for all rows of `data/raw`, written for those kept.

A text beside the title, such as a description, is one more text descriptor of the product's bag
(MUFIN Sec. 3, Notation). Its cleaning is that of titles.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.tables import SCHEMAS, batch_count, table_batches, temporary_batches
from mufin.artifacts.texts import NAME
from mufin.corpus.chosen_rows import ChosenRows, count_beside
from mufin.corpus.clean_rows import CleanRows
from mufin.corpus.cleaning import clean_titles
from mufin.progress import progress

if TYPE_CHECKING:
    import polars as pl

ROWS = 10_000  # at a time: descriptions are long
MARKUP = "further texts that were markup alone"
REPEATED = "further texts equal to the title or to an earlier one"
MORE = "texts of a product after its first download.max_texts"


def with_texts(source: CleanRows, raw: Path, most: int | None) -> CleanRows:
    """The rows with the texts beside the title that `raw` has of them, cleaned into a file.

    At most `most` texts of a product are kept, its title included; None: all. Without such texts in
    `raw` the rows as they are. Raises ArtifactError if they do not fit the products there.
    """
    if not (raw / NAME).is_file():
        return source
    schema, path = SCHEMAS["raw_texts"], _path(source)
    batches = table_batches(raw / NAME, "raw_texts", schema.names, ROWS)
    found = ChosenRows(batches, schema, count_beside(raw, NAME))  # nulls of labels
    lengths, dropped = [], Counter({MARKUP: 0, REPEATED: 0, MORE: 0})
    titles = temporary_batches(source.path, "products", ["title"], ROWS)
    count = batch_count(source.path, ROWS)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in progress(titles, "clean texts", f"batches of {ROWS}", count):
            texts = _cleaned(batch["title"], found.next(len(batch))["texts"], most, dropped)
            lengths.append(texts.list.len().to_numpy().astype(np.int32))
            column = texts.to_arrow().cast(schema.field("texts").type)
            writer.write_table(pa.table([column], schema=schema))
    return replace(source, further=np.concatenate(lengths), dropped=source.dropped | dropped)


def write_texts(source: CleanRows, rows: np.ndarray, products: Path, path: Path) -> None:
    """Write the texts of the products, row for row with the file `products`; batch by batch.

    `rows` (P,) int64, ascending, are the rows of the products in `source`.
    """
    schema, cleaned = SCHEMAS["texts"], SCHEMAS["raw_texts"]
    batches = temporary_batches(_path(source), "raw_texts", cleaned.names, ROWS)
    chosen = ChosenRows(batches, cleaned, len(source.tokens), rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for uids in temporary_batches(products, "products", ["uid"], ROWS):
            columns = [uids["uid"], chosen.next(len(uids))["texts"]]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def text_statistics(source: CleanRows, rows: np.ndarray, every: np.ndarray) -> dict:
    """How many texts products have, titles included; {} without columns of further texts.

    `rows` (P,) are the rows of the products, `every` (N,) the products of all datapoints.
    """
    if source.further is None:
        return {}
    further = source.further[rows]
    texts = further + (source.tokens[rows] > 0)
    return {
        "texts_per_datapoint": round(float(texts[every].mean()), 3),
        "products_with_further_texts": int((further > 0).sum()),
    }


def _path(source: CleanRows) -> Path:
    """The temporary file of the cleaned texts, beside that of the cleaned rows."""
    return source.path.with_name(f"cleaned_{NAME}")


def _cleaned(
    titles: pa.Array, texts: pa.ChunkedArray, most: int | None, dropped: Counter[str]
) -> pl.Series:
    """(n,) list<string>: the distinct texts of each row that are not its title; counts the others.

    `titles` (n,) are cleaned, `texts` (n,) list<string> as found. At most `most` texts are left,
    the title included, the first ones.
    """
    import polars as pl

    title = pl.Series(pl.from_arrow(titles))
    rows = pl.DataFrame({"row": np.arange(len(title)), "text": pl.Series(pl.from_arrow(texts))})
    flat = rows.explode("text").drop_nulls()
    filled = flat.with_columns(text=clean_titles(flat["text"])).filter(pl.col("text") != "")
    dropped[MARKUP] += int((flat["text"].str.strip_chars() != "").sum()) - len(filled)
    other = filled.filter(filled["text"] != title.gather(filled["row"]))
    other = other.unique(maintain_order=True, keep="first")
    dropped[REPEATED] += len(filled) - len(other)
    if most is not None:
        room = most - (title != "").cast(pl.Int64)
        place = pl.int_range(pl.len()).over("row")
        dropped[MORE] += len(other)
        other = other.filter(place < room.gather(other["row"]))
        dropped[MORE] -= len(other)
    grouped = other.group_by("row", maintain_order=True).agg(pl.col("text"))
    # The join brings back the rows that have no text left
    every = rows.select("row").join(grouped, on="row", how="left", maintain_order="left")
    return every["text"].fill_null([])
