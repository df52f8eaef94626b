"""Google Merchant Center: product feeds as text with tabs, and as XML (RSS 2.0, RSS 1.0, Atom 1.0).

Attributes: support.google.com/merchants, "Product data specification". Facebook, Pinterest and most
shop systems write the same feeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mufin.catalogs.attribute_cells import Values, attribute_of
from mufin.catalogs.bad_rows import BadRow, BadRows
from mufin.catalogs.cells import uid_of, whole_texts_of
from mufin.catalogs.column_names import no_column
from mufin.catalogs.forms.feed_xml import begins_as_xml, items_of
from mufin.catalogs.forms.tables import (
    ATTRIBUTES,
    TEXTS,
    Table,
    cell,
    codes,
    drop,
    rows_by_name,
    take_texts,
    values_of,
)
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import Part, parts_of
from mufin.catalogs.product import Product

FEED = Table(
    "a Google Merchant feed",
    {
        "id": ("id",),
        "title": ("title",),
        "image": ("image link",),
        "more_images": ("additional image link",),
        "type": ("product type",),
        "google_type": ("google product category",),
        "gtin": ("gtin",),
    },
    ("id", "title", "image"),
    "a feed has the columns id, title and image_link, or is XML with items that have g:id",
)
NAMES = (
    "id title image_link additional_image_link product_type google_product_category gtin".split()
)
MANY = 200  # names of elements that are remembered for an error text
# A comma before the next URL; a comma inside a URL stays.
BETWEEN_URLS = re.compile(r"\s*[,|]\s*(?=https?://|//)")


def products(
    files: list[Path],
    notes: Notes,
    *,
    encoding: str | None = None,
    bad: BadRows | None = None,
    attributes: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Iterator[Product]:
    """The products of feeds, each variant (item_group_id) one of its own, as in the feed.

    Feeds have no relations: these come from download.interactions.
    """
    for path in files:
        parts = parts_of(path)
        if all(map(begins_as_xml, parts)):
            for part in parts:
                yield from _xml(part, notes, bad, attributes, texts)
        else:
            yield from _text(path, notes, encoding, bad, attributes, texts)


def _text(
    path: Path,
    notes: Notes,
    encoding: str | None,
    bad: BadRows | None,
    attributes: Sequence[str],
    texts: Sequence[str],
) -> Iterator[Product]:
    rows = rows_by_name([path], FEED, notes, encoding, bad, attributes=attributes, texts=texts)
    for _, number, row in rows:
        values = values_of(attributes, row, notes)
        row.pop(ATTRIBUTES, None)
        more = row.pop("more_images", None)
        try:
            further = take_texts(row, path, number, notes)
        except BadRow as error:
            drop(error, bad)
            continue
        cells = {key: cell(value) for key, value in row.items()}
        links = more if isinstance(more, list) else BETWEEN_URLS.split(cell(more))
        images = [cells.get("image", ""), *map(cell, links)]
        types = [cells.get("type", ""), cells.get("google_type", "")]
        try:
            yield from _product(cells, images, types, path, number, notes, values, further)
        except BadRow as error:
            drop(error, bad)


def _xml(
    part: Part,
    notes: Notes,
    bad: BadRows | None,
    attributes: Sequence[str],
    texts: Sequence[str],
) -> Iterator[Product]:
    wanted = [(name, _element(name)) for name in attributes]
    long = [(name, _element(name)) for name in texts]
    # The elements that no item had so far, with the settings that name them
    unseen = {element: (ATTRIBUTES, name) for name, element in wanted}
    unseen |= {element: (TEXTS, name) for name, element in long if element not in unseen}
    names = dict[str, None]()
    for number, item in items_of(part):
        for element in list(unseen):
            if element in item or f"g:{element}" in item:
                del unseen[element]
        if unseen and len(names) < MANY:
            names |= dict.fromkeys(name.removeprefix("g:") for name in item)
        values = tuple(attribute_of(_texts(item, element), name, notes) for name, element in wanted)
        # Those of Google come first; `title` and `id` without a prefix may be of RSS and Atom.
        found = {name: item.get(f"g:{name}", []) + item.get(name, []) for name in NAMES}
        cells = {name: next(filter(None, texts), "") for name, texts in found.items()}
        images = found["image_link"] + found["additional_image_link"]
        types = found["product_type"] + found["google_product_category"]
        if bad is not None:
            bad.rows += 1
        try:
            further = [
                text
                for name, element in long
                for text in whole_texts_of(_texts(item, element), part.shown, number, name, notes)
            ]
            yield from _product(cells, images, types, part.shown, number, notes, values, further)
        except BadRow as error:
            drop(error, bad)
    for key, name in unseen.values():
        raise no_column(str(part.shown), key, name, names, (), True)


def _element(attribute: str) -> str:
    """The name of the element: `sale_price` for `Sale price` and for `g:sale_price`."""
    return attribute.lower().removeprefix("g:").replace(" ", "_")


def _texts(item: dict[str, list[str]], element: str) -> list[str]:
    return [text for text in item.get(f"g:{element}", []) or item.get(element, []) if text]


def _product(
    cells: dict[str, str],
    images: list[str],
    types: list[str],
    path: Path,
    line: int,
    notes: Notes,
    values: Values,
    texts: list[str],
) -> Iterator[Product]:
    if not cells.get("id"):
        notes.add("items without an id, dropped", f"{path} line {line}")
        return
    uid = uid_of(cells["id"], path, line, "id", notes)
    yield Product(
        uid,
        cells.get("title", ""),
        list(dict.fromkeys(image for image in images if image)),
        category=next((names for text in types if (names := category(text))), []),
        other_ids=[code for code in codes([cells.get("gtin", "")], notes) if code != uid],
        attributes=values,
        texts=texts,
    )


def category(text: str) -> list[str]:
    """The names of `Home > Women > Dresses`; [] for a number of Google's taxonomy."""
    names = [name.strip() for name in text.split(">")]
    return [name for name in names if name and not name.isdecimal()]
