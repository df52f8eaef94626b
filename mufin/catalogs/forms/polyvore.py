"""Polyvore Outfits (Vasileva et al., ECCV 2018): items, and outfits as baskets of items.

polyvore_item_metadata.json is one object {item id: item}; the outfits are lists in
nondisjoint/{train,valid,test}.json and disjoint/. Pictures are images/<item id>.jpg.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.cells import NULLS, text_of, texts_of
from mufin.catalogs.json_text import JsonText, json_items
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.text_files import first_character, text_file
from mufin.errors import MufinError

METADATA, OUTFITS = "polyvore_item_metadata.json", "nondisjoint/train.json"


def products(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[Product]:
    """The items. Its field `related` has names of searches, not items, and is not read."""
    for path in files:
        for line, uid, item in _items(path, encoding):
            title = _text(item.get("title")) or _text(item.get("url_name"))
            if not title:
                notes.add("items without a title", uid)
            picture = f"images/{uid}.jpg"
            there = (path.parent / picture).is_file()
            if not there:
                notes.add("items without a picture beside the file", picture)
            # `categories` goes from the most special to the most general in some releases only.
            coarse = _text(item.get("semantic_category"))
            names = texts_of(item.get("categories"), path, line, "categories")
            category = dict.fromkeys([coarse, *names] if coarse else names)
            yield Product(uid, title, [picture] if there else [], category=list(category))


def _items(path: Path, encoding: str | None) -> Iterator[tuple[int, str, dict]]:
    """(line, id, item) of each item of the file."""
    if first_character(path, encoding) != "{":
        raise _no_items(path)
    with text_file(path, encoding) as file:
        text = JsonText(file, path)
        text.character("{")
        if text.next() == "}":
            raise _no_items(path)
        end = ","
        while end == ",":
            line, uid = text.here(), text.item()
            text.character(":")
            item = text.item()
            if not isinstance(uid, str) or not isinstance(item, dict):
                raise _no_items(path)
            yield line, uid, item
            end = text.character(",}")


def _no_items(path: Path) -> MufinError:
    what = "a list, such as the outfits are" if first_character(path) == "[" else "something else"
    return MufinError(
        f"{path} is {what}, not an object of {{item id: item}}; give {METADATA}, and the outfits "
        "as download.interactions.location (mufin import: --interactions)"
    )


def interactions(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[tuple[str, str, float | None, float]]:
    """(outfit, item, None, 1) of each item of each outfit: these were worn together."""
    for path in files:
        if first_character(path, encoding) != "[":
            raise _no_outfits(path)
        for outfit in json_items(path, encoding):
            items = outfit.get("items") if isinstance(outfit, dict) else None
            if (
                not isinstance(outfit, dict)
                or "set_id" not in outfit
                or not isinstance(items, list)
            ):
                raise _no_outfits(path)
            for item in items:
                if not isinstance(item, dict) or not _text(item.get("item_id")):
                    raise _no_outfits(path)
                yield _text(outfit["set_id"]), _text(item["item_id"]), None, 1.0


def _no_outfits(path: Path) -> MufinError:
    return MufinError(
        f"{path} is not a list of outfits {{set_id, items: [{{item_id}}]}}; give {OUTFITS} and the "
        "like; the questions of fill_in_blank_test.json and compatibility_test.txt are no outfits"
    )


def _text(value: object) -> str:
    text = text_of(value).strip() if not isinstance(value, dict | list) else ""
    return "" if text in NULLS else text
