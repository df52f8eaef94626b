"""`data/raw` written without the stage download: products, interactions and labels by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.files import write_json
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import SCHEMAS, write_table
from mufin.catalogs.product import Product

Row = tuple[str, int, float | None]  # item, basket, time


def written(
    home: Path,
    products: list[Product],
    interactions: Iterable[Row | tuple] | None = None,
    labels: list[tuple[str, str]] | None = None,
    **facts: object,
) -> Path:
    """Write `home/data/raw`; an interaction may have a weight as its fourth value."""
    (home / "data").mkdir(parents=True, exist_ok=True)
    with publish(home / "data/raw") as folder:
        folder.mkdir()
        names = SCHEMAS["raw_products"].names
        columns = {n: [getattr(p, n) for p in products] for n in names}
        pq.write_table(
            pa.table(columns, schema=SCHEMAS["raw_products"]), folder / "products.parquet"
        )
        none = {n: pa.array([], pa.string()) for n in SCHEMAS["image_log"].names}
        write_table(none, "image_log", folder / "image_log.parquet")
        if interactions is not None:
            rows = [(*row, 1.0)[:4] for row in interactions]
            table = dict(zip(SCHEMAS["interactions"].names, zip(*rows)))
            write_table(
                {n: pa.array(c, SCHEMAS["interactions"].field(n).type) for n, c in table.items()},
                "interactions",
                folder / "interactions.parquet",
            )
        if labels is not None:
            uids, titles = zip(*labels)
            write_table({"uid": uids, "title": titles}, "raw_labels", folder / "labels.parquet")
        found = {"interactions": interactions is not None, "labels": labels is not None}
        related = sum(len(p.related) for p in products)
        write_json(
            {"source": "catalog", "released": False, "relations": related} | found | facts,
            folder / "source.json",
        )
    return home


def ids(home: Path, part: str) -> list[dict]:
    """The datapoints of a split with ids in place of numbers: product, labels."""
    table = pq.read_table(home / f"data/curated/{part}.parquet").to_pylist()
    uids = pq.read_table(home / "data/curated/products.parquet")["uid"].to_pylist()
    folder = home / "data/curated"
    labels = pq.read_table(folder / "labels.parquet")["product"].to_pylist()
    if part.startswith("unseen/"):
        labels += pq.read_table(folder / "unseen/labels.parquet")["product"].to_pylist()
    return [
        {
            "product": uids[row["product"]],
            "labels": {uids[labels[label]] for label in row["labels"]},
        }
        for row in table
    ]


def label_ids(home: Path, folder: str = "") -> set[str]:
    """The ids of the labels of `data/curated`, or of those in `data/curated/unseen`."""
    uids = np.array(pq.read_table(home / "data/curated/products.parquet")["uid"].to_pylist())
    products = pq.read_table(home / "data/curated" / folder / "labels.parquet")["product"]
    return set(uids[products.to_numpy()].tolist())
