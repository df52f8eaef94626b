"""Stage curate: clean products, labels, splits and filter pairs (MUFIN Sec. 4, Datasets; App. B).

python -m pipeline.curate

All passes over the raw table go batch by batch. Cleaned rows wait in a temporary Parquet file, ids
are kept as hashes and relations as integers, so a catalog of millions needs a few hundred bytes of
memory per product.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mufin import runtime
from mufin.artifacts.contents import checked
from mufin.artifacts.curated import Split
from mufin.artifacts.files import artifact_json, write_json
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import (
    SCHEMAS,
    read_table,
    table_batches,
    temporary_batches,
    write_table,
)
from mufin.corpus import splits
from mufin.corpus.cleaning import best_rows, clean_relations, clean_titles, image_keys
from mufin.corpus.lookup import Lookup, hashes
from mufin.corpus.subsample import dense_subsample
from mufin.errors import MufinError
from mufin.params import Curate, load_params
from mufin.progress import progress
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class CleanRows:
    """The n rows of the raw table, cleaned; several rows can still have one id."""

    path: Path  # of the Parquet file with the cleaned rows, schema "products"
    ids: Lookup  # of the rows' ids; `ids.group` is the number of each row's id
    tokens: np.ndarray  # (n,) int32, words of the title
    images: np.ndarray  # (n,) int32, pictures
    dropped: dict[str, int]  # what cleaning removed, by reason


@dataclass(frozen=True, slots=True)
class Catalog:
    """P distinct products, numbered in the order of the raw table."""

    source: CleanRows
    rows: np.ndarray  # (P,) int64 ascending, the row of each product in the source
    of_id: np.ndarray  # (ids,) int64, the product of each id, -1 if it was dropped
    relations: Lists  # (P,) rows of products, ascending and distinct
    dropped: dict[str, int]  # what was removed so far, by reason

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, uids: pl.Series) -> np.ndarray:
        """(n,) int64: the product of each id, -1 if there is none."""
        number = self.source.ids.find(hashes(uids.str.strip_chars()))
        return np.where(number >= 0, self.of_id[number], -1)


def main(home: runtime.Home = Path(".")):
    """Clean products, drop those without title and picture, build labels, splits, filter pairs."""
    s, raw = load_params(home / "params.yaml").curate, home / "data/raw"
    checked(raw)
    released = bool(artifact_json(raw / "source.json").get("released"))
    kind = "released" if released else s.split
    with runtime.measured("curate", home) as report:
        with publish(home / "data/curated") as folder:
            folder.mkdir()
            catalog = _catalog(raw, folder.parent / "rows.parquet", released)
            catalog, made = _released(raw, catalog, s) if released else _own_split(raw, catalog, s)
            _check_not_empty(made, s)
            _write(catalog, made, kind, folder)
        report.items = len(catalog.source.tokens)
        dropped = {"dropped": catalog.dropped | made.dropped}
        report.facts = {"split": kind} | _statistics(catalog, made) | dropped


# Cleaning


def _catalog(raw: Path, scratch: Path, keep_all: bool) -> Catalog:
    """The distinct products that have a title or a picture, without relations yet.

    Of several rows with one id, the first with title and picture is taken, else the first with
    either. `keep_all` keeps products that have neither: the rows of a released split are fixed.
    """
    source = _clean_rows(raw, scratch)
    quality = (source.tokens > 0).astype(np.int8) + (source.images > 0)
    if not quality.any():
        raise MufinError(
            f"none of the {len(quality)} rows of {raw}/products.parquet has a title or a picture; "
            "look at download.columns and at the reasons in metrics/download.json"
        )
    rows = np.sort(best_rows(source.ids.group, quality))
    dropped = source.dropped | {"rows with the id of another": len(quality) - len(rows)}
    empty = quality[rows] == 0
    dropped["products with neither title nor picture"] = 0 if keep_all else int(empty.sum())
    rows = rows if keep_all else rows[~empty]
    of_id = np.full(len(source.ids), -1, np.int64)
    of_id[source.ids.group[rows]] = np.arange(len(rows))
    no_relations = Lists(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int64))
    return Catalog(source, rows, of_id, no_relations, dropped)


def _clean_rows(raw: Path, scratch: Path) -> CleanRows:
    """All rows of the raw table, cleaned into the file `scratch`."""
    urls, keys = _pictures(raw / "image_log.parquet")
    ids, tokens, images, markup, failed = [], [], [], 0, 0
    batches = table_batches(
        raw / "products.parquet", "raw_products", ["uid", "title", "images", "category"]
    )
    with pq.ParquetWriter(scratch, SCHEMAS["products"], compression="zstd") as writer:
        for batch in progress(batches, "clean products", "batches of 50000"):
            table = pl.from_arrow(batch)
            if table["uid"].null_count():
                raise MufinError(
                    f"{raw}/products.parquet has a product without an id; run download again"
                )
            titles, pictures = clean_titles(table["title"]), image_keys(table["images"], urls, keys)
            uids = table["uid"].str.strip_chars()
            ids.append(hashes(uids))
            tokens.append(titles.str.count_matches(r"\S+").to_numpy())
            images.append(pictures.list.len().to_numpy())
            had_title = table["title"].fill_null("").str.strip_chars() != ""
            markup += int(((titles == "") & had_title).sum())
            failed += int(table["images"].list.len().fill_null(0).sum()) - int(images[-1].sum())
            writer.write_table(_products(uids, titles, pictures, table["category"]))
    if not ids:
        raise MufinError(f"{raw}/products.parquet holds no product; look at download.location")
    dropped = {
        "titles that were markup alone": markup,
        "image references without a picture or repeated": failed,
    }
    return CleanRows(
        scratch,
        Lookup(np.concatenate(ids)),
        np.concatenate(tokens).astype(np.int32),
        np.concatenate(images).astype(np.int32),
        dropped,
    )


def _pictures(log: Path) -> tuple[Lookup, pl.Series]:
    """The image references that gave a picture, and the key of each of them in the image store."""
    found, keys = [np.zeros((0, 2), np.uint64)], [pl.Series("key", [], pl.String)]
    for batch in table_batches(log, "image_log", ["url", "key"]):
        table = pl.from_arrow(batch).filter(pl.col("key").fill_null("") != "")
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


def _related(raw: Path, catalog: Catalog) -> Catalog:
    """The catalog with its relations.

    All rows of an id count, also those that `_catalog` did not take: they can have other relations.
    """
    group, start = catalog.source.ids.group, 0
    source: list[np.ndarray] = []
    target: list[np.ndarray] = []
    dropped = Counter({"dangling relations": 0, "relations of or to dropped products": 0})
    batches = table_batches(raw / "products.parquet", "raw_products", ["related"])
    for batch in progress(batches, "relations", "batches of 50000"):
        rows = np.arange(start, start + len(batch))
        start += len(batch)
        flat = pl.DataFrame({"row": rows, "id": pl.from_arrow(batch)["related"]})
        flat = flat.explode("id").drop_nulls()
        number = catalog.source.ids.find(hashes(flat["id"].str.strip_chars()))
        inside = number >= 0
        a = catalog.of_id[group[flat["row"].to_numpy()[inside]]]
        b = catalog.of_id[number[inside]]
        there = (a >= 0) & (b >= 0)
        dropped["dangling relations"] += int((~inside).sum())
        dropped["relations of or to dropped products"] += int((~there).sum())
        source.append(a[there].astype(np.int32))
        target.append(b[there].astype(np.int32))
    relations, gone = clean_relations(np.concatenate(source), np.concatenate(target), len(catalog))
    return replace(catalog, relations=relations, dropped=catalog.dropped | dict(dropped) | gone)


# Splits


def _own_split(raw: Path, catalog: Catalog, s: Curate) -> tuple[Catalog, splits.Splits]:
    """A cold or warm split of all products, or of a subsample of `curate.max_products`."""
    if len(catalog) < 2:
        raise MufinError(
            "the catalog has only one product; give at least two, and check download.location"
        )
    catalog = _related(raw, catalog)
    if not len(catalog.relations.values):
        lost = catalog.dropped["dangling relations"]
        raise MufinError(
            f"no product is related to another product of the catalog ({lost} related ids are not "
            "in it); look at download.columns.related and whether its ids are those of "
            "download.columns.id"
        )
    if s.max_products and s.max_products < len(catalog):
        catalog, _ = _subsampled(catalog, catalog.relations, s)
    make = splits.cold_split if s.split == "cold" else splits.warm_split
    return catalog, make(catalog.relations, s.test, s.valid, np.random.default_rng([s.seed, 0]))


def _released(raw: Path, catalog: Catalog, s: Curate) -> tuple[Catalog, splits.Splits]:
    """The split that came with the data; only a subsample removes labels or datapoints from it."""
    uids = pl.from_arrow(read_table(raw / "released/labels.parquet", "released_labels"))["uid"]
    labels = _found(catalog, uids, raw / "released/labels.parquet")
    train, test = (
        _released_rows(raw / f"released/{name}.parquet", catalog, len(labels))
        for name in ("train", "test")
    )
    if s.max_products and s.max_products < len(catalog):
        relations = _relations_of(train, test, labels, len(catalog))
        catalog, position = _subsampled(catalog, relations, s)
        labels, train, test = splits.restricted(labels, train, test, position)
    rng = np.random.default_rng([s.seed, 0])
    return catalog, splits.released_split(labels, train, test, s.valid, rng)


def _relations_of(train: Split, test: Split, labels: np.ndarray, num_products: int) -> Lists:
    """(num_products,) rows: the products that are labels of each product in the released split."""
    source = np.concatenate([rows.product[rows.labels.rows()] for rows in (train, test)])
    target = np.concatenate([labels[rows.labels.values] for rows in (train, test)])
    return clean_relations(source, target, num_products)[0]


def _released_rows(path: Path, catalog: Catalog, num_labels: int) -> Split:
    """One split of the released data with product numbers in place of ids."""
    table = read_table(path, "released_split")
    product = _found(catalog, pl.from_arrow(table.select(["uid"]))["uid"], path)
    lists = [Lists.of_column(table[name]) for name in ("labels", "excluded")]
    lists = [Lists(rows.offsets, rows.values.astype(np.int64)) for rows in lists]
    for rows in lists:
        if len(wrong := rows.values[(rows.values < 0) | (rows.values >= num_labels)]):
            raise MufinError(
                f"{path} names label {wrong[0]}, but there are only {num_labels} labels; "
                "run download again"
            )
    return Split(product, *lists)


def _found(catalog: Catalog, uids: pl.Series, path: Path) -> np.ndarray:
    """(n,) int64: the product of each id; raises MufinError if `path` names one that is missing."""
    products = catalog.find(uids)
    if len(lost := np.flatnonzero(products < 0)):
        raise MufinError(
            f"{path} row {lost[0] + 1} names the product {uids[int(lost[0])]!r}, which is not in "
            "products.parquet; run download again"
        )
    return products


def _subsampled(catalog: Catalog, relations: Lists, s: Curate) -> tuple[Catalog, np.ndarray]:
    """`curate.max_products` products with dense `relations`, and the new number of each product.

    A removed product has the number -1.
    """
    keep = dense_subsample(relations, s.max_products, np.random.default_rng([s.seed, 1]))
    position = np.full(len(catalog), -1, np.int64)
    position[keep] = np.arange(len(keep))
    dropped = catalog.dropped | {"products outside the subsample": len(catalog) - len(keep)}
    of_id = np.where(catalog.of_id >= 0, position[catalog.of_id], -1)
    inside = splits.mapped(catalog.relations.take(keep), position)
    return Catalog(catalog.source, catalog.rows[keep], of_id, inside, dropped), position


def _check_not_empty(made: splits.Splits, s: Curate) -> None:
    for name, part in (("train", 1.0), ("test", s.test)):
        if part and not len(made.rows[name].product):
            raise MufinError(
                f"no {name} datapoint is left with a label after the split (curate.test "
                f"{s.test:g}, curate.valid {s.valid:g}); change these, or provide more products "
                "with relations"
            )


# Writing


def _write(catalog: Catalog, made: splits.Splits, kind: str, folder: Path) -> None:
    """Write data/curated: products, labels, splits, and what belongs to unseen labels."""
    _write_products(catalog, folder / "products.parquet")
    for sub, labels, rows in (
        ("", made.labels, made.rows),
        ("unseen/", made.unseen, made.unseen_rows),
    ):
        write_table({"product": labels.astype(np.int32)}, "labels", folder / f"{sub}labels.parquet")
        for name, split in rows.items():
            columns = {
                "product": split.product.astype(np.int32),
                "labels": split.labels.to_arrow(pa.int32()),
                "excluded": split.excluded.to_arrow(pa.int32()),
            }
            write_table(columns, "split", folder / f"{sub}{name}.parquet")
    write_json({"split": kind}, folder / "split.json")


def _write_products(catalog: Catalog, path: Path) -> None:
    """Copy the rows of the products from the temporary file of all cleaned rows."""
    chosen, start = np.zeros(len(catalog.source.tokens), bool), 0
    chosen[catalog.rows] = True
    with pq.ParquetWriter(path, SCHEMAS["products"], compression="zstd") as writer:
        names = SCHEMAS["products"].names
        for batch in temporary_batches(catalog.source.path, "products", names):
            writer.write_batch(batch.filter(pa.array(chosen[start : start + len(batch)])))
            start += len(batch)


def _statistics(catalog: Catalog, made: splits.Splits) -> dict:
    """The figures of Table 1 of the paper for this catalog, and counts of what is missing.

    N, N' and L are `train`, `test` and `labels`; the means are over the datapoints of all splits.
    """
    every = np.concatenate([r.product for r in made.rows.values()])
    tokens, images = catalog.source.tokens[catalog.rows], catalog.source.images[catalog.rows]
    pairs = sum(len(r.labels.values) for r in made.rows.values())
    train_pairs = len(made.rows["train"].labels.values)
    counts = {"products": len(catalog)} | {n: len(r.product) for n, r in made.rows.items()}
    return counts | {
        "labels": len(made.labels),
        "unseen_labels": len(made.unseen),
        "labels_per_datapoint": round(pairs / len(every), 3),
        "train_datapoints_per_label": round(train_pairs / max(len(made.labels), 1), 3),
        "tokens_per_datapoint": round(float(tokens[every].mean()), 3),
        "images_per_datapoint": round(float(images[every].mean()), 3),
        "filter_pairs": sum(len(r.excluded.values) for r in made.rows.values()),
        "products_without_title": int((tokens == 0).sum()),
        "products_without_image": int((images == 0).sum()),
        "products_without_either": int(((tokens == 0) & (images == 0)).sum()),
    }


if __name__ == "__main__":
    runtime.run(main)
