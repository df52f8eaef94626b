"""The forms that `download.source` and `mufin import` name: what shops and data sets export."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mufin.catalogs.forms import (
    amazon,
    google_merchant,
    hm,
    movielens,
    polyvore,
    shopify,
    woocommerce,
)
from mufin.catalogs.product import Product
from mufin.errors import MufinError

Interaction = tuple[str, str, float | None, float]  # basket, item, seconds since 1970, weight


@dataclass(frozen=True, slots=True)
class Form:
    """The readers of one form. Both take (files, notes, *, encoding, bad).

    `encoding` is that of text files, None as their first bytes say; faults of one row go to `bad`
    (`BadRows`), and stop without it.
    """

    products: Callable[..., Iterator[Product]]
    interactions: Callable[..., Iterator[Interaction]] | None  # None: the tool exports none
    folder: tuple[str, ...]  # names of the products' files in a folder, the first that exists
    behaviour: tuple[str, ...] = ()  # the same of the interactions' files
    # As `products`, in tables with the schema of products.parquet where that is possible.
    tables: Callable[..., Iterator[Product | pa.Table]] | None = None
    local: bool = False  # whether pictures are files beside the products' file


FORMS = {
    "amazon-2014": Form(
        amazon.products_2014, amazon.interactions, ("meta_*.json*",), ("reviews_*.json*",)
    ),
    "amazon-2018": Form(
        amazon.products_2018,
        amazon.interactions,
        ("meta_*.json*",),
        ("*.json*", "*.csv*"),
        tables=amazon.tables_2018,
    ),
    "amazon-2023": Form(
        amazon.products_2023,
        amazon.interactions,
        ("meta_*.json*", "raw_meta_*/*.parquet"),
        ("*.json*", "raw_review_*/*.parquet", "*.csv*"),
    ),
    "google-merchant": Form(google_merchant.products, None, ("*.xml*", "*.tsv*", "*.txt*")),
    "hm": Form(
        hm.products, hm.interactions, ("articles.csv*",), ("transactions_train.csv*",), local=True
    ),
    "movielens": Form(
        movielens.products,
        movielens.interactions,
        ("movies.csv*", "movies.dat*", "u.item"),
        ("ratings.csv*", "ratings.dat*", "u.data"),
    ),
    "polyvore": Form(
        polyvore.products,
        polyvore.interactions,
        ("polyvore_item_metadata.json*",),
        ("nondisjoint/[tv]*.json*", "disjoint/[tv]*.json*"),  # the first has all outfits
        local=True,
    ),
    "shopify": Form(
        shopify.products, shopify.interactions, ("products_export*.*",), ("orders_export*.*",)
    ),
    "woocommerce": Form(woocommerce.products, None, ("wc-product-export*.*",)),
}


def located(source: str, location: str | list[str], behaviour: bool = False) -> str | list[str]:
    """`location` with the files of the form `source` in place of each folder; others as they are.

    `behaviour` looks for the files of interactions. Raises MufinError for a folder without any.
    """
    items = [location] if isinstance(location, str) else location
    out: list[str] = []
    for item in items:
        if os.path.isdir(os.path.expanduser(item)):
            out += map(str, _in_folder(source, item, behaviour))
        else:
            out.append(item)
    return out[0] if len(out) == 1 else out


def _in_folder(source: str, folder: str, behaviour: bool) -> list[Path]:
    form, root = FORMS[source], Path(folder).expanduser()
    others = (
        {path for pattern in form.folder for path in root.glob(pattern)} if behaviour else set()
    )
    patterns = form.behaviour if behaviour else form.folder
    for pattern in patterns:
        found = (path for path in root.glob(pattern) if path not in others)
        if files := sorted(path for path in found if path.is_file()):
            return files
    names = " or ".join(patterns)
    there = ", ".join(sorted(path.name for path in root.glob("*")))[:60] or "nothing"
    raise MufinError(
        f"download.location names {folder}, a folder without {names} files (it has {there}); "
        "name the files themselves"
    )
