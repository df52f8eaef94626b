"""The rows of `data/raw` cleaned into a temporary file: products, then labels that are no products.

Cleaned rows wait in a Parquet file, ids are kept as hashes and relations as integers, so a catalog
of millions needs a few hundred bytes of memory per product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.tables import (
    BATCH,
    SCHEMAS,
    batch_count,
    table_batches,
    temporary_batches,
)
from mufin.corpus.cleaning import best_rows, clean_titles, image_keys
from mufin.corpus.lookup import Lookup, hashes
from mufin.corpus.matching import difference, normal
from mufin.errors import MufinError, shown
from mufin.progress import progress

if TYPE_CHECKING:
    import polars as pl

BATCHES = f"batches of {BATCH}"


@dataclass(frozen=True, slots=True)
class CleanRows:
    """The n rows of the raw tables, cleaned; several rows can still have one id."""

    path: Path  # of the Parquet file with the cleaned rows, schema "products"
    products: int  # rows of products; the rows after these are labels that are no products
    keys: Lookup  # the ids of the rows and, after these, the other ids of the products
    group: np.ndarray  # (n,) int32, the number of each row's id, in [0, ids)
    owner: np.ndarray  # (len(keys),) int64, the number of the id that each key belongs to
    tokens: np.ndarray  # (n,) int32, words of the title
    images: np.ndarray  # (n,) int32, pictures
    matches: tuple[str, ...]  # how ids are compared, see `normal`
    dropped: dict[str, int]  # what cleaning removed, by reason
    further: np.ndarray | None = None  # (n,) int32, texts beside the title; None: none were named

    @property
    def ids(self) -> int:
        """The number of distinct ids of rows."""
        return int(self.group.max(initial=-1)) + 1

    def described(self) -> np.ndarray:
        """(n,) bool: whether a row has a title or another text."""
        titled = self.tokens > 0
        return titled if self.further is None else titled | (self.further > 0)

    def find(self, ids: pl.Series) -> np.ndarray:
        """(m,) int64: the number of each id, of a row or another id of a product; -1 for none."""
        number = self.keys.find(hashes(normal(ids, self.matches)))
        return np.where(number >= 0, self.owner[number], -1)

    def texts(self, labels: bool = False) -> Iterator[pl.Series]:
        """The ids of the rows of products, or of those of labels, in batches."""
        import polars as pl

        start = 0
        for batch in temporary_batches(self.path, "products", ["uid"]):
            cut = min(max(self.products - start, 0), len(batch))
            start += len(batch)
            uids = pl.DataFrame(batch)["uid"]
            yield uids[cut:] if labels else uids[:cut]


@dataclass
class _Made:
    """What is gathered while rows are cleaned."""

    uids: list[np.ndarray] = field(default_factory=list)  # hashes of the ids as found
    keys: list[np.ndarray] = field(default_factory=list)  # hashes of their normal forms
    others: list[np.ndarray] = field(default_factory=list)  # hashes of other ids
    other_rows: list[np.ndarray] = field(default_factory=list)  # the row of each of these
    tokens: list[np.ndarray] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


def clean_rows(raw: Path, scratch: Path, matches: list[str], labels: bool) -> CleanRows:
    """All rows of the raw tables, cleaned into the file `scratch`.

    `matches` says which differences between ids do not count. With `labels` the rows of
    `raw/labels.parquet` follow those of the products. Raises MufinError if there is no product, if
    a row has no id, if a label has the id of a product, or if `matches` makes two ids equal.
    """
    made = _Made()
    with pq.ParquetWriter(scratch, SCHEMAS["products"], compression="zstd") as writer:
        _clean_products(raw, writer, made, matches)
        products = made.rows
        if not products:
            raise MufinError(f"{raw}/products.parquet holds no product; look at download.location")
        if labels:
            _clean_labels(raw, writer, made, matches)
    keys = Lookup(np.concatenate([*made.keys, *made.others]))
    group, ids = keys.group[: made.rows], int(keys.group[: made.rows].max()) + 1
    # Keys are numbered in the order of their first occurrence, so those of the rows come first.
    owner = np.arange(len(keys))
    if made.others:
        numbers = keys.group[made.rows :][::-1]  # reversed: the first product with an id keeps it
        rows = np.concatenate(made.other_rows)[::-1]
        owner[numbers[numbers >= ids]] = group[rows[numbers >= ids]]
    source = CleanRows(
        scratch,
        products,
        keys,
        group,
        owner,
        np.concatenate(made.tokens).astype(np.int32),
        np.concatenate(made.images).astype(np.int32),
        tuple(matches),
        made.dropped,
    )
    _check_ids(source, np.concatenate(made.uids) if matches else None)
    return source


def _clean_products(raw: Path, writer: pq.ParquetWriter, made: _Made, matches: list[str]) -> None:
    import polars as pl

    urls, keys = _pictures(raw / "image_log.parquet")
    markup = failed = 0
    columns = ["uid", "title", "images", "category", "other_ids"]
    path = raw / "products.parquet"
    batches = table_batches(path, "raw_products", columns)
    for batch in progress(batches, "clean products", BATCHES, batch_count(path)):
        table = pl.DataFrame(batch)
        if table["uid"].null_count():
            raise MufinError(
                f"{raw}/products.parquet has a product without an id; run download again"
            )
        titles, pictures = clean_titles(table["title"]), image_keys(table["images"], urls, keys)
        had_title = table["title"].fill_null("").str.strip_chars() != ""
        markup += int(((titles == "") & had_title).sum())
        found = pictures.list.len().to_numpy()
        failed += int(table["images"].list.len().fill_null(0).sum()) - int(found.sum())
        rows = np.arange(made.rows, made.rows + len(table))
        others = pl.DataFrame({"row": rows, "id": table["other_ids"]}).explode("id")
        others = others.filter(pl.col("id").str.strip_chars() != "")
        if len(others):
            made.others.append(hashes(normal(others["id"], matches)))
            made.other_rows.append(others["row"].to_numpy())
        uids = _add(made, table["uid"], titles, found, matches)
        writer.write_table(_products(uids, titles, pictures, table["category"]))
    made.dropped = {
        "titles that were markup alone": markup,
        "image references without a picture or repeated": failed,
    }


def _clean_labels(raw: Path, writer: pq.ParquetWriter, made: _Made, matches: list[str]) -> None:
    import polars as pl

    path = raw / "labels.parquet"
    batches = table_batches(path, "raw_labels", ["uid", "title"])
    for batch in progress(batches, "clean labels", BATCHES, batch_count(path)):
        table = pl.DataFrame(batch)
        titles = clean_titles(table["title"])
        none = pl.Series([[]] * len(table), dtype=pl.List(pl.String))
        uids = _add(made, table["uid"], titles, np.zeros(len(table), np.int32), matches)
        writer.write_table(_products(uids, titles, none, none))


def _add(
    made: _Made, uids: pl.Series, titles: pl.Series, images: np.ndarray, matches: list[str]
) -> pl.Series:
    """Gather the ids and sizes of a batch of rows; the ids without blanks at the ends."""
    uids = normal(uids)
    made.keys.append(hashes(normal(uids, matches)))
    if matches:
        made.uids.append(hashes(uids))
    made.tokens.append(titles.str.count_matches(r"\S+").to_numpy())
    made.images.append(images)
    made.rows += len(uids)
    return uids


def _check_ids(source: CleanRows, uids: np.ndarray | None) -> None:
    """Raises MufinError if a label has the id of a product, or two different ids are now equal.

    `uids` (n, 2) are the hashes of the ids as found, None if they are compared as they are.
    """
    rows = np.arange(len(source.group))
    first = np.full(source.ids, len(rows))
    np.minimum.at(first, source.group, rows)  # the first row of each id
    labels = rows[source.products :]
    if len(same := labels[first[source.group[labels]] < source.products]):
        one = _text(source, int(same[0]))
        raise MufinError(
            f"the label {shown(one)} has the id of a product; set download.labels.prefix, such as "
            "`label:`, to tell them apart"
        )
    if uids is None:
        return
    differs = np.flatnonzero((uids != uids[first[source.group]]).any(1))
    if len(differs):
        a, b = _text(source, int(first[source.group[differs[0]]])), _text(source, int(differs[0]))
        names = ", ".join(difference(a, b))
        raise MufinError(
            f"the ids {shown(a, 40)} and {shown(b, 40)} are of two products and equal by "
            f"download.match_ids ({', '.join(source.matches)}); take {names} out of it, or give "
            "the products other ids"
        )


def _text(source: CleanRows, row: int) -> str:
    """The id of a row."""
    for batch in temporary_batches(source.path, "products", ["uid"]):
        if row < len(batch):
            return batch["uid"][row].as_py()
        row -= len(batch)
    raise IndexError(row)


def _pictures(log: Path) -> tuple[Lookup, pl.Series]:
    """The image references that gave a picture, and the key of each of them in the image store."""
    import polars as pl

    found, keys = [np.zeros((0, 2), np.uint64)], [pl.Series("key", [], pl.String)]
    for batch in table_batches(log, "image_log", ["url", "key"]):
        table = pl.DataFrame(batch).filter(pl.col("key").fill_null("") != "")
        found.append(hashes(table["url"]))
        keys.append(table["key"])
    urls, every = Lookup(np.concatenate(found)), pl.concat(keys, rechunk=True)
    # From one key per row of the log to one per distinct reference.
    return urls, every.gather(best_rows(urls.group, np.zeros(len(every), np.int8)))


def _products(
    uids: pl.Series, titles: pl.Series, images: pl.Series, category: pl.Series
) -> pa.Table:
    columns = {"uid": uids, "title": titles, "images": images, "category": category.fill_null([])}
    types = SCHEMAS["products"]
    return pa.table(
        {n: c.to_arrow().cast(types.field(n).type) for n, c in columns.items()}, schema=types
    )
