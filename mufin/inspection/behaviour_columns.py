"""Which columns of a file hold the basket, the product and the time of interactions."""

from __future__ import annotations

import re
from collections.abc import Collection

from mufin.catalogs.bad_rows import Row
from mufin.catalogs.cells import at
from mufin.catalogs.interactions import KNOWN
from mufin.inspection.candidates import Column, items_of, text_of_item
from mufin.inspection.catalog_columns import loose

HINTS = {key: names.split() for key, names in KNOWN.items()}
WEIGHTS = {"weight", "rating", "stars", "score"}
PIECES = re.compile(r"quantity|qty|pieces|units")
TIMES = re.compile(r"when|^ts$|at$|dat|time|epoch|zeit|fecha")
NO_BASKET = re.compile(
    r"price|quantity|qty|amount|total|rating|weight|count|stock|category|country|name|title|date|"
    r"time|tax|discount|status"
)


def behaviour_columns(
    columns: list[Column], rows: list[Row], ids: Collection[str]
) -> dict[str, str | None] | None:
    """{basket, item, time, weight: column or None}; None if the file has no interactions.

    `ids` are those of the products, `loose`; without any, names of columns decide alone.
    """
    single = [c for c in columns if c.listed < 0.05 and not c.nested and c.share > 0.5 and c.name]
    item = _item([c for c in single if c.ids > 0.8], rows, ids)
    times = {c.name for c in single if _is_time(c)}
    rest = [c for c in single if c.name != item and c.name not in times]
    if item is None and ids:  # orders that hold their products, in a list of objects
        lists = [c for c in columns if c.ids > 0.8 and c.share > 0.5 and "[]." in c.name]
        item = _item([c for c in lists if not c.nested], rows, ids)
        rest = [c for c in rest if rank("basket", c)]
    if item is None:
        return None
    basket = _basket(rest)
    if basket is None:
        return None
    rest = [c for c in single if c.name not in (item, basket)]
    weights = [c.name for c in rest if c.plain in WEIGHTS and c.numbers > 0.9]
    timed = sorted((c for c in rest if c.name in times), key=_time_rank)
    return {
        "basket": basket,
        "item": item,
        "time": timed[0].name if timed else None,
        "weight": weights[0] if weights else None,
    }


def pieces(columns: list[Column]) -> str:
    """The column of a number of pieces, '' for none."""
    found = (c.name for c in columns if PIECES.search(c.plain) and c.numbers > 0.9)
    return next(found, "")


def rank(key: str, c: Column) -> float:
    """2 for a name that tools give to the column, less for one that ends so, 0 for others."""
    names = HINTS[key]
    if c.plain in names:
        return 2 - 0.02 * names.index(c.plain)
    return 1.0 if any(len(n) > 3 and n in c.plain for n in names) else 0.0


def _item(columns: list[Column], rows: list[Row], ids: Collection[str]) -> str | None:
    """The column whose values are products most often, of equal ones that of the best name."""
    best, best_score = None, 0.0
    for c in columns:
        share = shared([at(row, c.name) for row in rows], ids) if ids else 0.0
        score = share + 0.1 * rank("item", c)
        good = share > 0.05 if ids else rank("item", c) > 0 and c.distinct < 0.95
        if good and score > best_score:
            best, best_score = c.name, score
    return best


def shared(values: list[object], ids: Collection[str]) -> float:
    """The share of the items of values that are ids."""
    texts = [loose(text_of_item(item)) for value in values for item in items_of(value)]
    return sum(text in ids for text in texts) / max(len(texts), 1)


def _basket(columns: list[Column]) -> str | None:
    best, best_score = None, 0.0
    for c in columns:
        repeats = c.distinct < 0.9
        score = rank("basket", c) + (0.5 if repeats else 0) + (0.2 if c.plain.endswith("id") else 0)
        named = rank("basket", c) > 0
        if not named and (not repeats or NO_BASKET.search(c.plain) or c.rows * c.distinct < 10):
            continue
        if NO_BASKET.search(c.plain) and c.plain not in HINTS["basket"]:
            continue
        if score > best_score:
            best, best_score = c.name, score
    return best


def _is_time(c: Column) -> bool:
    named = rank("time", c) > 0 or TIMES.search(c.plain) is not None
    return c.times > 0.8 and (named or c.numbers < 0.5)  # a number of that size is often an id


def _time_rank(c: Column) -> float:
    return -rank("time", c)
