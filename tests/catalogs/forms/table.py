"""The table of docs/forms.md: each form, the command, and what came in.

The files are those of `tests.support.exports`: an invented shop of 40 products and 200 orders,
written as each tool writes it.

python -m tests.catalogs.forms.table prints it.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from mufin.catalogs.importing import import_catalog, interactions_file
from tests.support import exports

Write = Callable[[Path], Path]
ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)
PICTURE = b"a picture"


def _ratings(release: str) -> Write:
    return lambda folder: exports.movielens_ratings(folder, BASKETS, release)


def _movies(release: str) -> Write:
    return lambda folder: exports.movielens(folder, ITEMS, release)


ROWS: list[tuple[str, Write, Write | None]] = [  # form, its products, its interactions
    (
        "shopify",
        lambda f: exports.shopify(f, ITEMS),
        lambda f: exports.shopify_orders(f, BASKETS),
    ),
    ("woocommerce", lambda f: exports.woocommerce(f, ITEMS), None),
    ("google-merchant", lambda f: exports.merchant_tsv(f, ITEMS), None),
    ("google-merchant", lambda f: exports.merchant_xml(f, ITEMS), None),
    ("google-merchant", lambda f: exports.merchant_xml(f, ITEMS, atom=True), None),
    (
        "amazon-2023",
        lambda f: exports.amazon_2023(f, ITEMS),
        lambda f: exports.amazon_reviews(f, BASKETS),
    ),
    (
        "amazon-2023",
        lambda f: exports.amazon_2023_parquet(f, ITEMS),
        lambda f: exports.amazon_reviews(f, BASKETS),
    ),
    (
        "hm",
        lambda f: exports.hm(f, ITEMS, PICTURE),
        lambda f: exports.hm_transactions(f, BASKETS),
    ),
    (  # the folder stands for its files
        "polyvore",
        lambda f: exports.polyvore(f / "polyvore_outfits", ITEMS, PICTURE).parent,
        lambda f: exports.polyvore_outfits(f / "polyvore_outfits", BASKETS)[0].parents[1],
    ),
    ("movielens", _movies("100k"), _ratings("100k")),
    ("movielens", _movies("1m"), _ratings("1m")),
    ("movielens", _movies("latest"), _ratings("latest")),
]
HEADER = "| form | command | products | pictures | relations |"


def table() -> list[str]:
    """The lines of the table, in Markdown."""
    return [HEADER, "|---|---|--:|--:|---|", *_rows()]


def _rows() -> Iterator[str]:
    for source, write, write_behaviour in ROWS:
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
            products = write(Path("."))
            behaviour = write_behaviour(Path(".")) if write_behaviour else None
            words = [str(behaviour)] if behaviour else []
            list(import_catalog(source, [str(products)], words, Path("catalog.parquet")))
            cells = _cells(bool(behaviour))
        command = f"mufin import {source} {products}"
        command += f" --interactions {behaviour}" if behaviour else ""
        yield f"| {source} | `{command} -o catalog.parquet` | {cells} |"


def _cells(behaviour: bool) -> str:
    """Products, pictures and relations of catalog.parquet."""
    catalog = pq.read_table("catalog.parquet").to_pylist()
    related = sum(len(row["related"]) for row in catalog)
    relations = f"{related} related ids" if related else "none: set `download.interactions`"
    if behaviour:
        rows = pq.read_table(interactions_file(Path("catalog.parquet"))).to_pylist()
        known, baskets = {row["id"] for row in catalog}, defaultdict[str, set[str]](set)
        for row in rows:
            baskets[row["basket"]].add(row["item"])
        pairs = {p for b in baskets.values() for p in itertools.combinations(sorted(b & known), 2)}
        relations = f"{len(pairs)} pairs from {len(rows)} interactions"
    return f"{len(catalog)} | {sum(len(row['images']) for row in catalog)} | {relations}"


if __name__ == "__main__":
    print("\n".join(table()))
