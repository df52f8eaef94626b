"""Columns that are missing or occur twice, and which other column may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from mufin.errors import MufinError, escaped

# Names that tools give to the columns, in lower case without `_`, `-` and blanks.
SYNONYMS = {
    "id": "id uid sku asin parentasin productid itemid articleid productcode handle gtin ean code",
    "title": "title name productname producttitle producttext prodname itemname label",
    "images": "images image imageurl imageurls imageurlhighres imagelink imagesrc imagepath "
    "picture pictures pictureurl photo photos img imgs imgurl imurl thumbnail mainimage media",
    "related": "alsobuy alsobought relatedids relatedproducts related boughttogether crosssells "
    "upsells similar similarproducts similaritems recommendations alsoview alsoviewed",
    "category": "category categories categorypath producttype googleproductcategory breadcrumbs "
    "department maincategory",
}
CLOSE = 0.75  # likeness of two names of which one is a misspelling of the other


def top(column: str) -> str:
    """The name of the column that holds `column`: data of data.title, images of images[].url."""
    return column.partition(".")[0].removesuffix("[]")


def check_distinct(path: Path, names: list[str], columns: Iterable[str]) -> None:
    """Raises MufinError if a column that is used occurs twice."""
    wanted = set(columns) | {top(name) for name in columns}
    for name in wanted.intersection(names) if len(set(names)) < len(names) else ():
        if names.count(name) > 1:
            raise MufinError(
                f"{path} has the column {name!r} {names.count(name)} times; "
                "keep one, or rename the others"
            )


def suggested(key: str, column: str, names: Iterable[str], taken: Iterable[str] = ()) -> str:
    """The column that is likely meant by `column`, for the setting `key`; '' if none is.

    One of nearly the same name, else one that tools use for `key`. Never one that is `taken`.
    """
    free = [str(name) for name in names if str(name) not in set(taken)]
    plain: dict[str, str] = {}
    for name in free:
        plain.setdefault(_plain(name), name)
    if near := difflib.get_close_matches(_plain(column), plain, 1, CLOSE):
        return plain[near[0]]
    known = SYNONYMS.get(key, "").split()
    return next((plain[name] for name in known if name in plain), "")


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c not in "_- ")


def no_column(
    where: str, key: str, column: str, names: Iterable[str], taken: Iterable[str], none: bool
) -> MufinError:
    """The error of a column that is not there. `none`: the setting may be [], for no column."""
    names = [str(name) for name in names]
    has = escaped(" ".join(", ".join(names[:50]).split())[:120])
    near = suggested(key, column, names, taken)
    remedy = f"set download.columns.{key}" + (f" to {near}" if near else "")
    if none:
        remedy += (
            ", or to [] if there are none"
            if near
            else " to the column that has them, or to [] if there are none"
        )
    return MufinError(f"{where} has no column {column[:60]!r} (it has {has}); {remedy}")
