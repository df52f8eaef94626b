"""Products, labels and splits from what was fetched: cleaned, without the leak, with the filter pairs.

python -m pipeline.curate
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import runtime
from pipeline.artifacts import publish, read_json, read_table, write_json, write_table
from pipeline.corpus import splits
from pipeline.corpus.cleaning import clean_relations, clean_title
from pipeline.errors import MufinError
from pipeline.params import Curate, load_params
from pipeline.ragged import Lists


@dataclass(frozen=True, slots=True)
class Catalog:
    """Clean products, row by row; `row_of` maps an id to its row."""

    table: pl.DataFrame         # uid, title, images (keys), category
    relations: Lists            # rows
    dropped: dict[str, int]


def main(
    raw: Path = Path("data/raw"),
    out: Path = Path("data/curated"),
    metrics: Path = Path("metrics/curate.json"),
):
    """Clean, drop what has neither title nor picture, build labels, splits and filter pairs."""
    s = load_params().curate
    released = bool(read_json(raw / "source.json").get("released"))
    with runtime.measured(metrics) as report:
        catalog = _clean(raw, released)
        if s.max_products and s.max_products < len(catalog.table):
            catalog = _subsampled(catalog, s, released, raw)
        made = _released(raw, catalog, s) if released else _split(catalog, s)
        kind = "released" if released else s.split
        with publish(out) as folder:
            folder.mkdir()
            _write(catalog, made, kind, folder)
        report |= _statistics(catalog, made) | {"split": kind, "dropped": catalog.dropped | made.dropped,
                                                "items": len(catalog.table)}


def _clean(raw: Path, released: bool) -> Catalog:
    """Distinct products that have a title or a picture; the first row of an id wins, relations of all its rows count."""
    table = pl.from_arrow(read_table(raw / "products.parquet", "raw_products"))
    log = pl.from_arrow(read_table(raw / "image_log.parquet", "image_log")).filter(pl.col("key") != "")
    if not len(table):
        raise MufinError(f"{raw}/products.parquet holds no product; look at download.location")
    rows = len(table)
    table = table.with_columns(pl.col("uid").str.strip_chars())
    related = table.select("uid", "related").explode("related").drop_nulls()
    table = table.unique("uid", keep="first", maintain_order=True)
    dropped = {"repeated ids": rows - len(table)}
    titles = [clean_title(t) for t in table["title"]]
    dropped["titles that were markup alone"] = sum(bool(t and t.strip()) and not c for t, c in zip(table["title"], titles))
    table = table.with_columns(pl.Series("title", titles, pl.String), _keys(table, log))
    keep = (pl.col("title") != "") | (pl.col("images").list.len() > 0)
    kept = table.filter(keep) if not released else table
    dropped["products with neither title nor picture"] = len(table) - len(kept)
    if not len(kept):
        raise MufinError("no product has a title or a picture; look at download.columns and metrics/download.json")
    relations, gone = _relations(kept, related)
    if not released and not len(relations.values):
        raise MufinError("no product is related to another of the catalog; look at download.columns.related and whether "
                         "its ids are those of download.columns.id")
    return Catalog(kept.select("uid", "title", "images", "category"), relations, dropped | gone)


def _keys(table: pl.DataFrame, log: pl.DataFrame) -> pl.Series:
    """Image keys in place of references, in order, each once a product."""
    exploded = table.select(pl.int_range(pl.len()).alias("row"), "images").explode("images").drop_nulls()
    keyed = exploded.join(log.unique("url", keep="first"), left_on="images", right_on="url", how="inner",
                          maintain_order="left")
    grouped = keyed.group_by("row", maintain_order=True).agg(pl.col("key").unique(maintain_order=True))
    all_rows = pl.DataFrame({"row": np.arange(len(table))}).with_columns(pl.col("row").cast(exploded.schema["row"]))
    joined = all_rows.join(grouped, on="row", how="left", maintain_order="left")
    return joined["key"].fill_null([]).rename("images")


def _relations(table: pl.DataFrame, related: pl.DataFrame) -> tuple[Lists, dict[str, int]]:
    """Relations as rows of `table`; ids that are not in it count as dangling."""
    ids = table.select("uid", pl.int_range(pl.len()).cast(pl.Int64).alias("row"))
    pairs = related.with_columns(pl.col("related").str.strip_chars()).join(ids, on="uid", how="inner").join(
        ids.rename({"uid": "related", "row": "target"}), on="related", how="left")
    return clean_relations(pairs["row"].to_numpy(), pairs["target"].fill_null(-1).to_numpy(), len(table))


def _subsampled(catalog: Catalog, s: Curate, released: bool, raw: Path) -> Catalog:
    """At most `max_products`, chosen along the relations so that they stay dense."""
    relations = catalog.relations
    if released:
        relations = _released_relations(raw, catalog.table)
    keep = splits.dense_subsample(relations, s.max_products, np.random.default_rng([s.seed, 1]))
    position = np.full(len(catalog.table), -1, np.int64)
    position[keep] = np.arange(len(keep))
    rest = catalog.relations.take(keep)
    inside = position[rest.values] >= 0
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rest.rows()[inside], minlength=len(keep)))]).astype(np.int64)
    dropped = catalog.dropped | {"products outside the subsample": len(catalog.table) - len(keep)}
    return Catalog(catalog.table[keep], Lists(offsets, position[rest.values[inside]]), dropped)


def _split(catalog: Catalog, s: Curate) -> splits.Splits:
    make = splits.cold_split if s.split == "cold" else splits.warm_split
    made = make(catalog.relations, s.test, s.valid, np.random.default_rng([s.seed, 0]))
    if not len(made.rows["train"].product):
        raise MufinError(f"no datapoint is left to train on of {len(catalog.table)} products; lower curate.test and "
                         "curate.valid, or give more products")
    return made


def _row_of(table: pl.DataFrame, uids: pl.Series) -> np.ndarray:
    """(n,) rows of `uids` in the table, -1 where an id is not there."""
    ids = table.select("uid", pl.int_range(pl.len()).cast(pl.Int64).alias("row"))
    joined = pl.DataFrame({"uid": uids.str.strip_chars()}).join(ids, on="uid", how="left", maintain_order="left")
    return joined["row"].fill_null(-1).to_numpy()


def _released_relations(raw: Path, table: pl.DataFrame) -> Lists:
    """Datapoint-label pairs of a released split as relations between products."""
    label_row = _row_of(table, pl.from_arrow(read_table(raw / "released/labels.parquet", "released_labels"))["uid"])
    source, target = [], []
    for name in ("train", "test"):
        t = read_table(raw / f"released/{name}.parquet", "released_split")
        lists = Lists.of_column(t["labels"])
        rows = _row_of(table, pl.from_arrow(t)["uid"])
        source.append(rows[lists.rows()])
        target.append(label_row[lists.values])
    source, target = np.concatenate(source), np.concatenate(target)
    return clean_relations(source[source >= 0], target[source >= 0], len(table))[0]


def _released(raw: Path, catalog: Catalog, s: Curate) -> splits.Splits:
    """The released split over the products kept; label ids and test rows as released where nothing was subsampled."""
    label_rows = _row_of(catalog.table, pl.from_arrow(read_table(raw / "released/labels.parquet", "released_labels"))["uid"])
    position = np.where(label_rows >= 0, np.cumsum(label_rows >= 0) - 1, -1)
    parts = {}
    for name in ("train", "test"):
        t = read_table(raw / f"released/{name}.parquet", "released_split")
        product = _row_of(catalog.table, pl.from_arrow(t)["uid"])
        keep = np.flatnonzero(product >= 0)
        lists = [splits.mapped(Lists.of_column(t[c]).take(keep), position) for c in ("labels", "excluded")]
        parts[name] = splits.Rows(product[keep], *lists)
    return splits.released_split(label_rows[label_rows >= 0], parts["train"], parts["test"], s.valid,
                                 np.random.default_rng([s.seed, 0]))


def _write(catalog: Catalog, made: splits.Splits, kind: str, folder: Path) -> None:
    t = catalog.table
    category = t["category"].fill_null([])
    write_table({"uid": t["uid"].to_arrow().cast(pa.string()), "title": t["title"].to_arrow().cast(pa.string()),
                 "images": t["images"].to_arrow().cast(pa.list_(pa.string())),
                 "category": category.to_arrow().cast(pa.list_(pa.string()))}, "products", folder / "products.parquet")
    write_table({"product": made.labels.astype(np.int32)}, "labels", folder / "labels.parquet")
    write_table({"product": made.unseen.astype(np.int32)}, "labels", folder / "unseen/labels.parquet")
    for sub, rows in (("", made.rows), ("unseen/", made.unseen_rows)):
        for name, split in rows.items():
            write_table({"product": split.product.astype(np.int32), "labels": split.labels.to_arrow(pa.int32()),
                         "excluded": split.excluded.to_arrow(pa.int32())}, "split", folder / f"{sub}{name}.parquet")
    write_json({"split": kind}, folder / "split.json")


def _statistics(catalog: Catalog, made: splits.Splits) -> dict:
    """Table 1 of the paper, for this catalog."""
    every = np.concatenate([r.product for r in made.rows.values()])
    tokens = np.array([len(t.split()) for t in catalog.table["title"]])
    images = catalog.table["images"].list.len().to_numpy()
    pairs = sum(len(r.labels.values) for r in made.rows.values())
    return {"products": len(catalog.table), "train": len(made.rows["train"].product),
            "valid": len(made.rows["valid"].product), "test": len(made.rows["test"].product),
            "labels": len(made.labels), "unseen_labels": len(made.unseen),
            "labels_a_datapoint": round(pairs / max(len(every), 1), 3),
            "tokens_a_datapoint": round(float(tokens[every].mean()), 3) if len(every) else 0.0,
            "images_a_datapoint": round(float(images[every].mean()), 3) if len(every) else 0.0,
            "filter_pairs": sum(len(r.excluded.values) for r in made.rows.values()),
            "products_without_title": int((tokens == 0).sum()), "products_without_image": int((images == 0).sum())}


if __name__ == "__main__":
    runtime.run(main)
