"""Outfits by the ids of products, as the stage download wrote them, to rows of the products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from mufin.artifacts.outfits import Compatibility, Outfits, OutfitSets, Questions
from mufin.artifacts.tables import read_table
from mufin.corpus.catalog import Catalog
from mufin.errors import MufinError
from mufin.ragged import Lists, offsets_of


def outfits_of(raw: Path, catalog: Catalog) -> Outfits:
    """The tables of `data/raw/outfits` with rows of products in place of ids.

    Raises MufinError if one names a product that is not in the catalog.
    """
    sets, asked, judged = (
        read_table(raw / f"{name}.parquet", f"raw_{name}")
        for name in ("outfits", "questions", "compatibility")
    )
    position, right = (asked[name].to_numpy().astype(np.int64) for name in ("position", "right"))
    return Outfits(
        OutfitSets(_texts(sets["split"]), _texts(sets["set"]), _rows(sets["items"], catalog)),
        Questions(
            _texts(asked["split"]),
            _found(pl.Series(pl.from_arrow(asked["uid"])), catalog),
            _rows(asked["items"], catalog),
            position,
            _rows(asked["answers"], catalog),
            right,
        ),
        Compatibility(
            _texts(judged["split"]),
            _rows(judged["items"], catalog),
            judged["compatible"].to_numpy().astype(bool),
        ),
    )


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=np.str_)


def _rows(column: pa.ChunkedArray, catalog: Catalog) -> Lists:
    """(n,) lists of products from lists of ids; no list may be empty."""
    lists = pl.Series(pl.from_arrow(column))
    return Lists(offsets_of(lists.list.len().to_numpy()), _found(lists.explode(), catalog))


def _found(uids: pl.Series, catalog: Catalog) -> np.ndarray:
    products = catalog.find(uids)
    if len(lost := np.flatnonzero(products < 0)):
        raise MufinError(
            f"an outfit has the item {uids[int(lost[0])]!r}, which is not in products.parquet; "
            "run download again"
        )
    return products
