"""Shopify: the CSV files that its admin exports, of products and of orders.

Products (help.shopify.com, "Using CSV files to import and export products"): one row per variant
and per picture. All rows of a product have its Handle; only the first one has its title. Orders:
one row per item of an order; only the first one has the order's time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mufin.catalogs.attribute_cells import Values
from mufin.catalogs.bad_rows import BadRow, BadRows
from mufin.catalogs.cells import time_of
from mufin.catalogs.forms.tables import (
    ATTRIBUTES,
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

FIELD = "product.metafields.shopify--discovery--product_recommendation."
PRODUCTS = Table(
    "Shopify's export of products",
    {
        "handle": ("Handle", "URL handle"),
        "title": ("Title",),
        "category": ("Product Category", "Google Shopping / Google Product Category"),
        "type": ("Type", "Custom Product Type"),
        "status": ("Status",),
        "published": ("Published", "Published on online store"),
        "image": ("Image Src", "Product image URL", "Image source"),
        "position": ("Image Position",),
        "variant_image": ("Variant Image", "Variant image URL"),
        "sku": ("Variant SKU", "SKU"),
        "barcode": ("Variant Barcode", "Barcode"),
        "option1": ("Option1 Value",),
        "option2": ("Option2 Value",),
        "option3": ("Option3 Value",),
        "complementary": (f"{FIELD}complementary_products",),
        "related": (f"{FIELD}related_products",),
    },
    ("handle", "title"),
    "in Shopify's admin, Products, Export writes one",
)
ORDERS = Table(
    "Shopify's export of orders",
    {
        "order": ("Name",),
        "time": ("Created at", "Paid at"),
        "cancelled": ("Cancelled at",),
        "item": ("Lineitem name",),
        "sku": ("Lineitem sku",),
        "quantity": ("Lineitem quantity",),
    },
    ("order", "item"),
    "in Shopify's admin, Orders, Export writes one",
)
LAST = 10**9  # the position of pictures without one
MANY = 10_000  # rows of a product; Shopify allows 2,048 variants and 250 pictures
NO_OPTION = "Default Title"  # of a product that has no variants


@dataclass(slots=True)
class Draft:
    """What the rows of one Handle say."""

    handle: str
    title: str = ""
    category: list[str] = field(default_factory=list)
    status: str = ""
    published: str = ""
    images: list[tuple[int, str]] = field(default_factory=list)  # (position, URL)
    variant_images: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)  # SKUs and barcodes, as written
    variants: list[str] = field(default_factory=list)  # `Red / XL`
    related: list[str] = field(default_factory=list)
    attributes: Values = ()
    texts: list[str] = field(default_factory=list)  # beside the title
    rows: int = 0

    def add(self, row: dict[str, object], notes: Notes, values: Values, texts: list[str]) -> None:
        """Adds a row, its attributes and its texts, unless there are too many."""
        self.rows += 1
        if self.rows > MANY:
            notes.add(f"rows of a Handle after its first {MANY}, dropped", self.handle)
            return
        cells = {key: cell(value) for key, value in row.items()}
        self.title = self.title or cells.get("title", "")
        self.category = self.category or _category(cells)
        self.status = self.status or cells.get("status", "").lower()
        self.published = self.published or cells.get("published", "").lower()
        if image := cells.get("image"):
            position = cells.get("position", "")
            known = position.isdecimal() and len(position) < len(str(LAST))
            self.images.append((int(position) if known else LAST, image))
        if image := cells.get("variant_image"):
            self.variant_images.append(image)
        self.codes += [cells[key] for key in ("sku", "barcode") if cells.get(key)]
        options = [cells.get(f"option{number}", "") for number in (1, 2, 3)]
        variant = " / ".join(option for option in options if option)
        if variant and variant != NO_OPTION:
            self.variants.append(variant)
        for key in ("complementary", "related"):
            self.related += references(cells.get(key, ""))
        self.attributes = joined(self.attributes, values)
        self.texts += [text for text in texts if text not in self.texts]

    def product(self, notes: Notes) -> Product:
        """The product; orders may name it by SKU, by title, or by `title - variant`."""
        ordered = sorted(self.images, key=lambda image: image[0])  # stable: else as written
        names = [self.title, *(f"{self.title} - {v}" for v in self.variants)] if self.title else []
        others = dict.fromkeys([*codes(self.codes, notes), *names])
        others.pop(self.handle, None)
        return Product(
            self.handle,
            self.title,
            list(dict.fromkeys([*(url for _, url in ordered), *self.variant_images])),
            list(dict.fromkeys(self.related)),
            self.category,
            other_ids=list(others),
            attributes=self.attributes,
            texts=self.texts,
        )


def products(
    files: list[Path],
    notes: Notes,
    *,
    encoding: str | None = None,
    bad: BadRows | None = None,
    attributes: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Iterator[Product]:
    """The products of the files, without drafts and archived ones.

    The id is the Handle. Rows of a Handle are together in files of Shopify. Where they are not (a
    sorted or joined file), the product comes last. Memory is bounded by those and by the Handles.
    Of the columns `attributes` the first value in the rows of a Handle counts, such as the price of
    the first variant; of the columns `texts` all of them.
    """
    scattered = _scattered(files, encoding, first_look(bad))
    apart: dict[str, Draft] = {}
    draft: Draft | None = None
    rows = rows_by_name(files, PRODUCTS, notes, encoding, bad, attributes=attributes, texts=texts)
    for path, number, row in rows:
        values = values_of(attributes, row, notes)
        row.pop(ATTRIBUTES, None)
        try:
            further = take_texts(row, path, number, notes)
        except BadRow as error:
            drop(error, bad)
            continue
        handle = cell(row.get("handle"))
        if not handle:
            notes.add("rows without a Handle, dropped", f"{path} line {number}")
            continue
        if handle in scattered:
            apart.setdefault(handle, Draft(handle)).add(row, notes, values, further)
            continue
        if draft is None or handle != draft.handle:
            if draft is not None:
                yield from _kept(draft, notes)
            draft = Draft(handle)
        draft.add(row, notes, values, further)
    for last in [*([draft] if draft else []), *apart.values()]:
        yield from _kept(last, notes)
    notes.add("products whose rows are not together", next(iter(apart), None), len(apart))


def _scattered(files: list[Path], encoding: str | None, bad: BadRows) -> set[str]:
    """The Handles that come again after another one."""
    seen: set[str] = set()
    again: set[str] = set()
    before = ""
    for _, _, row in rows_by_name(files, PRODUCTS, Notes(), encoding, bad):
        handle = cell(row.get("handle"))
        if handle and handle != before:
            (again if handle in seen else seen).add(handle)
            before = handle
    return again


def _kept(draft: Draft, notes: Notes) -> Iterator[Product]:
    """The product, unless the shop does not sell it."""
    if draft.status in ("draft", "archived", "unlisted"):
        notes.add(f"products with the status {draft.status}, dropped", draft.handle)
        return
    if draft.published == "false":
        notes.add("products not published in the online store, kept", draft.handle)
    if not draft.title:
        notes.add("products without a title", draft.handle)
    yield draft.product(notes)


def _category(cells: dict[str, str]) -> list[str]:
    path = [part.strip() for part in cells.get("category", "").split(">")]
    found = [part for part in path if part and not part.isdecimal()]  # numbers: Google's taxonomy
    return found or [text for text in [cells.get("type", "")] if text]


def references(text: str) -> list[str]:
    """The products that a metafield names: handles, or `gid://shopify/Product/<number>`."""
    parts = re.split(r"[\s;,|\[\]\"]+", text)
    return [part.rpartition("/")[2] for part in parts if part]


def interactions(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[tuple[str, str, float | None, float]]:
    """(order, SKU or else the item's name, time in seconds, 1) of each item of each order.

    Cancelled orders are left out. The number of pieces does not count: twelve glasses of one order
    are one decision to buy.
    """
    order, time, cancelled = "", None, False
    for path, number, row in rows_by_name(files, ORDERS, notes, encoding, bad):
        name = cell(row.get("order"))
        if name and name != order:
            order, time, cancelled = name, None, False
            try:
                time = time_of(row.get("time"), path, number, "Created at", notes)
            except BadRow as error:
                drop(error, bad)
                continue
            cancelled = bool(cell(row.get("cancelled")))
            notes.add("cancelled orders, dropped", order, int(cancelled))
        item = next(iter(codes([cell(row.get("sku"))], notes)), "") or cell(row.get("item"))
        if not order or not item:
            notes.add("rows without an order or an item, dropped", f"{path} line {number}")
        elif not cancelled:
            yield order, item, time, 1.0
