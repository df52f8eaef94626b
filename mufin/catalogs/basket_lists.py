"""Rows that hold several products of a basket, such as orders with `line_items`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mufin.catalogs.bad_rows import BadRow, Row
from mufin.catalogs.cells import at, decoded, getter

Values = dict[str, object]  # {basket, item, time, weight: value}


class BasketRows:
    """Gives the values of each product in a row.

    The product's column may be a list (`skus`), or be in a list of objects: `line_items[].sku`, or
    `line_items.sku` as Parquet tools name it. Columns of the same objects are read from each of
    them, so that `line_items[].quantity` belongs to the product beside it. Of the other columns, a
    list has one value per product, in their order, and a single value holds for all of them.
    """

    def __init__(self, columns: Mapping[str, str], path: Path):
        self.columns, self.path = columns, path
        self.get = {name: getter(column) for name, column in columns.items()}
        self.nested = "." in columns["item"] or "[" in columns["item"]

    def values(self, number: int, row: Row) -> list[Values]:
        """The values of each product; raises BadRow for lists of different lengths."""
        if self.nested and self.columns["item"] not in row:
            for place in _places(self.columns["item"]):
                items = at(row, place)
                if isinstance(items, list | tuple):
                    return self._of_items(number, row, place, items)
        return self._spread(number, {name: get(row) for name, get in self.get.items()})

    def _of_items(self, number: int, row: Row, place: str, items: list | tuple) -> list[Values]:
        """The values of each item of the list that is at `place`."""
        inner = {
            name: column[len(place) :].removeprefix(".")
            for name, column in self.columns.items()
            if column == place or column.startswith(f"{place}.")
        }
        values = {name: get(row) for name, get in self.get.items() if name not in inner}
        for name, column in inner.items():
            values[name] = [_inside(item, column) for item in items]
        return self._spread(number, values, inner)

    def _spread(self, number: int, values: Values, inner: Collection[str] = ()) -> list[Values]:
        """One for each product of a list; the row itself, if it has no list of products."""
        if not isinstance(values["item"], list | tuple):
            return [values]
        lists = {
            name: value
            for name, value in values.items()
            if isinstance(value, list | tuple) and (name != "basket" or name in inner)
        }
        if not (count := len(lists["item"])):
            return [values | dict.fromkeys(lists)]
        for name, value in lists.items():
            if len(value) != count:
                raise BadRow(
                    f"{self.path} line {number} has {count} products in {self.columns['item']}, "
                    f"but {len(value)} values in {self.columns[name]}; give one for each, or one "
                    "for all"
                )
        return [values | dict(zip(lists, one)) for one in zip(*lists.values())]


def _places(column: str) -> Iterator[str]:
    """Where the list may be that holds `column`: up to its last `[]`, else up to each dot."""
    head, mark, _ = column.rpartition("[]")
    if mark:
        yield head + mark
        return
    names = column.split(".")
    yield from (".".join(names[:end]) for end in range(1, len(names)))


def _inside(item: object, column: str) -> object:
    """The value of `column` in an item of a list; the item itself for ''."""
    if not column:
        return item
    item = decoded(item)
    return at(item, column) if isinstance(item, dict) else None
