"""H&M Personalized Fashion Recommendations (Kaggle 2022): articles.csv and transactions_train.csv.

Pictures are in images/, in a folder per first three digits: images/010/0108775015.jpg.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.cells import time_of, title_of, uid_of
from mufin.catalogs.forms.tables import Table, parsed, rows_by_name
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product

ARTICLES = Table(
    "H&M's articles.csv",
    {
        "id": ("article_id",),
        "name": ("prod_name",),
        "type": ("product_type_name",),
        "colour": ("colour_group_name",),
        "index": ("index_group_name",),
        "group": ("product_group_name",),
    },
    ("id", "name"),
    "it is in the competition's data",
)
TRANSACTIONS = Table(
    "H&M's transactions_train.csv",
    {"time": ("t_dat",), "customer": ("customer_id",), "id": ("article_id",)},
    ("time", "customer", "id"),
    "it is in the competition's data",
)
DIGITS = 10  # of an article's id; tools that read it as a number lose the first zero


def products(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[Product]:
    """The articles; the title is name, type and colour, as many articles have the same name.

    A picture is a path relative to the file; an article without one has none.
    """
    rows = rows_by_name(files, ARTICLES, notes, encoding, bad)
    yield from parsed(rows, bad, partial(_product, notes))


def _product(notes: Notes, path: Path, number: int, row: dict[str, object]) -> Product:
    uid = article(row.get("id"), path, number, notes)
    words = {
        key: title_of(row.get(key), path, number, names[0], notes).strip()
        for key, names in ARTICLES.columns.items()
    }
    picture = f"images/{uid[:3]}/{uid}.jpg"
    there = (path.parent / picture).is_file()
    if not there:
        notes.add("articles without a picture beside the file", picture)
    title = dict.fromkeys(words[key] for key in ("name", "type", "colour"))
    groups = dict.fromkeys(words[key] for key in ("index", "group", "type"))
    return Product(
        uid,
        ", ".join(word for word in title if word),
        [picture] if there else [],
        category=[group for group in groups if group],
    )


def interactions(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[tuple[str, str, float | None, float]]:
    """(customer, article, day in seconds, 1) of each article sold.

    A customer is one basket; curate.interactions.window: 0 makes one of each day.
    """
    rows = rows_by_name(files, TRANSACTIONS, notes, encoding, bad)
    yield from parsed(rows, bad, partial(_interaction, notes))


def _interaction(
    notes: Notes, path: Path, number: int, row: dict[str, object]
) -> tuple[str, str, float | None, float]:
    return (
        uid_of(row.get("customer"), path, number, "customer_id", notes),
        article(row.get("id"), path, number, notes),
        time_of(row.get("time"), path, number, "t_dat", notes),
        1.0,
    )


def article(value: object, path: Path, number: int, notes: Notes) -> str:
    """The id with its ten digits."""
    uid = uid_of(value, path, number, "article_id", notes)
    if len(uid) < DIGITS and uid.isdecimal():
        notes.add("article ids that lost their first zeros, restored", uid)
        return uid.zfill(DIGITS)
    return uid
