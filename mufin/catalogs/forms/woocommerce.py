"""WooCommerce: the CSV file that Products, Export writes (its "Product CSV Import Schema").

One row per product. A variable product has one more row per variation, whose Parent names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mufin.catalogs.attribute_cells import Values
from mufin.catalogs.bad_rows import BadRow, BadRows
from mufin.catalogs.cells import uid_of
from mufin.catalogs.forms.tables import (
    ATTRIBUTES,
    TEXTS,
    Table,
    cell,
    codes,
    drop,
    first_look,
    joined,
    rows_by_name,
    take_texts,
    values_of,
)
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product

PRODUCTS = Table(
    "WooCommerce's export of products",
    {
        "id": ("ID",),
        "type": ("Type",),
        "sku": ("SKU",),
        "gtin": ("GTIN, UPC, EAN, or ISBN",),
        "title": ("Name",),
        "published": ("Published",),
        "images": ("Images",),
        "categories": ("Categories",),
        "parent": ("Parent",),
        "upsells": ("Upsells",),
        "cross_sells": ("Cross-sells", "Crosssells"),
    },
    ("type", "title", "sku"),
    "column names are in the language of your WordPress user: set it to English, and export all",
)
COMMA = re.compile(r"(?<!\\),")  # `\,` is a comma inside a value
ESCAPED = re.compile(r"'[=+\-@\t\r]")  # the apostrophe is WooCommerce's, against formulas
STATES = {"0": "private", "-1": "draft"}  # of Published


@dataclass(slots=True)
class Variations:
    """What the variations of one product add to it."""

    images: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)  # ids, SKUs and GTINs of the variations
    attributes: Values = ()
    texts: list[str] = field(default_factory=list)  # beside the title


def products(
    files: list[Path],
    notes: Notes,
    *,
    encoding: str | None = None,
    bad: BadRows | None = None,
    attributes: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Iterator[Product]:
    """The published products; a variation is part of its parent, with its pictures and its SKU.

    The id is the ID, or the SKU in files without IDs. Related are the upsells, then the
    cross-sells. The files are read twice, because a parent may come before or after its variations;
    those of all products are in memory. Of the columns `attributes` a product without a value, such
    as a variable product without a price, has that of its first variation with one; of the columns
    `texts` it has its own and those of all variations.
    """
    variations = _variations(files, encoding, first_look(bad), attributes, texts)
    rows = rows_by_name(files, PRODUCTS, notes, encoding, bad, attributes=attributes, texts=texts)
    for path, number, row in rows:
        values = values_of(attributes, row, notes)
        cells = plain(row)
        if "variation" in types(cells):
            continue
        sku, uid = cells.get("sku", ""), ""
        try:
            column = "ID" if cells.get("id") else "SKU"
            uid = uid_of(cells.get("id") or sku, path, number, column, notes)
            further = _texts(row, path, number, notes)
        except BadRow as error:
            if cells.get("id") or sku:
                drop(error, bad)
            else:
                notes.add("rows without an ID and a SKU, dropped", f"{path} line {number}")
            continue
        refs = [f"id:{uid}", *([sku] if sku else [])]
        more = [found for ref in refs if (found := variations.pop(ref, None))]
        if state := STATES.get(cells.get("published", "")):
            notes.add(f"products that are {state}, dropped", uid)
            continue
        product = _product(uid, cells, more, notes)
        for part in more:
            values = joined(values, part.attributes)
            further += part.texts
        product.attributes, product.texts = values, further
        yield product
    for parent, left in variations.items():
        notes.add("variations without their parent, dropped", f"{left.ids[0]} of {parent}")


def _product(uid: str, cells: dict[str, str], more: list[Variations], notes: Notes) -> Product:
    images = listed(cells.get("images", "")) + [image for found in more for image in found.images]
    others = [cells.get("sku", ""), cells.get("gtin", "")]
    others = codes([*others, *(code for found in more for code in found.ids)], notes)
    related = listed(cells.get("upsells", "")) + listed(cells.get("cross_sells", ""))
    return Product(
        uid,
        cells.get("title", ""),
        list(dict.fromkeys(images)),
        list(dict.fromkeys(ref.removeprefix("id:") for ref in related)),
        category(cells.get("categories", "")),
        other_ids=[text for text in dict.fromkeys(others) if text != uid],
    )


def _variations(
    files: list[Path],
    encoding: str | None,
    bad: BadRows,
    attributes: Sequence[str],
    texts: Sequence[str],
) -> dict[str, Variations]:
    """{Parent as written, a SKU or `id:123`: what its variations add}."""
    out: dict[str, Variations] = {}
    none = Notes()  # the rows are read again
    for path, number, row in rows_by_name(
        files, PRODUCTS, none, encoding, bad, attributes=attributes, texts=texts
    ):
        cells = plain(row)
        if "variation" in types(cells):
            found = out.setdefault(cells.get("parent", ""), Variations())
            found.images += listed(cells.get("images", ""))
            ids = [cells[key] for key in ("id", "sku", "gtin") if cells.get(key)]
            found.ids += ids or [f"{path} line {number}"]
            found.attributes = joined(found.attributes, values_of(attributes, row, none))
            try:
                further = _texts(row, path, number, none)
            except BadRow as error:
                drop(error, bad)
                continue
            found.texts += [text for text in further if text not in found.texts]
    return out


def _texts(row: dict[str, object], path: Path, number: int, notes: Notes) -> list[str]:
    """The texts beside the title, whose line breaks WooCommerce writes as `\\n`; raises BadRow."""
    return [text.replace("\\n", "\n") for text in take_texts(row, path, number, notes)]


def types(cells: dict[str, str]) -> list[str]:
    """The words of Type, such as `variation, virtual`."""
    return listed(cells.get("type", "").lower())


def plain(row: dict[str, object]) -> dict[str, str]:
    """The texts of a row's cells as the shop has them, '' for none."""
    texts = {key: cell(value) for key, value in row.items() if key not in (ATTRIBUTES, TEXTS)}
    return {key: text[1:] if ESCAPED.match(text) else text for key, text in texts.items()}


def listed(text: str) -> list[str]:
    """The values of a comma list."""
    parts = [part.replace("\\,", ",").strip() for part in COMMA.split(text)]
    return [part for part in parts if part]


def category(text: str) -> list[str]:
    """The longest of the paths in `Clothing, Clothing > Hoodies, Sale`, the first on a tie."""
    paths = [[name.strip() for name in path.split(">") if name.strip()] for path in listed(text)]
    return max(paths, key=len, default=[])
