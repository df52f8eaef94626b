"""What the values of each column look like: ids, titles, pictures, lists, numbers, times."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mufin.catalogs.bad_rows import BadRow, Row
from mufin.catalogs.cells import NULLS, at, text_of, time_of
from mufin.catalogs.lists import parts

MOST = 300  # columns that are looked at, those inside others included
DEEPEST = 3  # levels of columns inside others
PICTURE = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)(\?.*)?$", re.I)
URL = re.compile(r"(?:https?:)?//|data:image/", re.I)
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
LONGEST_ID = 80  # characters
HERE = Path("here")  # of errors that are not shown


@dataclass(frozen=True, slots=True)
class Column:
    """What a column has in the first rows; shares are of the values or items that are there."""

    name: str
    rows: int  # that have a value
    share: float  # of all rows
    distinct: float  # different values per value
    listed: float  # share of values that are lists, or texts with separators
    items: float  # per value
    pictures: float  # share of items that are images: bytes, data: URLs, names as image.jpg
    urls: float
    ids: float  # share of items that could be ids: short, without blanks
    numbers: float
    times: float  # share of values that are dates, or seconds since 1970
    words: float  # per value
    longest: int  # characters of a value
    nested: bool  # objects or lists of them: nothing that a setting can name

    @property
    def plain(self) -> str:
        """The name in lower case, letters and digits alone."""
        return plain(self.name)


def plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def columns_of(rows: list[Row]) -> list[Column]:
    """All columns, also those in objects (`a.b`) and in lists of objects (`a[].b`)."""
    found: dict[str, None] = {}
    for row in rows:
        found |= dict.fromkeys(row)
    for row in rows[:100]:
        for name, value in row.items():
            found |= dict.fromkeys(_inside(name, value, 1))
        if len(found) > MOST:
            break
    return [_column(name, rows) for name in list(found)[:MOST]]


def _inside(name: str, value: object, depth: int) -> Iterator[str]:
    """The names of the columns in a value."""
    value = _decoded(value)
    if isinstance(value, dict) and not _stored(value) and depth <= DEEPEST:
        for key, inner in value.items():
            yield f"{name}.{key}"
            yield from _inside(f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and not _stored(value[0]):
        for key, inner in value[0].items():
            yield f"{name}[].{key}"
            if isinstance(inner, dict):
                yield from _inside(f"{name}[].{key}", inner, depth + 1)


def _decoded(value: object) -> object:
    if isinstance(value, str) and value.lstrip()[:2] in ("{", '{"', "[{") and len(value) < 10**6:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _stored(value: dict) -> bool:
    """Whether it is an image as Hugging Face's data sets store it."""
    return "bytes" in value and set(value) <= {"bytes", "path"}


def items_of(value: object) -> list:
    """The items of a value, which may be a list in a text; missing ones left out."""
    if isinstance(value, str):
        text = value.strip()
        if not text or text in NULLS:
            return []
        items = parts(text, "image" if URL.match(text) or PICTURE.search(text) else "id") or [text]
    else:
        items = list(value) if isinstance(value, list | tuple) else [value]
    return [
        item
        for item in items
        if item is not None and item == item and text_of_item(item) not in ("", *NULLS)
    ]


def text_of_item(item: object) -> str:
    """The text of an id or a name; `1` for 1.0."""
    if isinstance(item, bytes | dict | list):
        return "?"
    if isinstance(item, float) and item == item // 1:
        return str(int(item))
    return text_of(item).strip()


def _column(name: str, rows: list[Row]) -> Column:
    values = [(value, items_of(value)) for value in (at(row, name) for row in rows)]
    values = [(value, items) for value, items in values if items]
    count = len(values) or 1
    items = [item for _, some in values for item in some[:50]]
    texts = [text_of_item(item) for item in items]
    whole = [text_of_item(v) if not isinstance(v, list | dict) else str(v)[:200] for v, _ in values]
    n = len(items) or 1
    lists = sum(isinstance(v, list | tuple) or len(some) > 1 for v, some in values)
    return Column(
        name=name,
        rows=len(values),
        share=len(values) / max(len(rows), 1),
        distinct=len(set(whole)) / count,
        listed=lists / count,
        items=sum(len(some) for _, some in values) / count,
        pictures=sum(map(_is_picture, items)) / n,
        urls=sum(URL.match(text) is not None for text in texts) / n,
        ids=sum(_is_id(text) for text in texts) / n,
        numbers=sum(NUMBER.fullmatch(text) is not None for text in texts) / n,
        times=_times(value for value, _ in values[:200]),
        words=sum(len(text.split()) for text in whole) / count,
        longest=max(map(len, whole), default=0),
        nested=any(isinstance(item, dict) and not _stored(item) for item in items),
    )


def _is_picture(item: object) -> bool:
    if isinstance(item, bytes) or (isinstance(item, dict) and _stored(item)):
        return True
    text = text_of_item(item)
    return PICTURE.search(text) is not None or text[:11].lower() == "data:image/"


def _is_id(text: str) -> bool:
    short = 0 < len(text) <= LONGEST_ID and not text.count(" ")
    return short and not URL.match(text) and not PICTURE.search(text)


def _times(values: Iterable[object]) -> float:
    """The share of values that are dates, or numbers of the size of seconds since 1970."""
    good = count = 0
    for value in values:
        count += 1
        text = text_of(value).strip().replace("/", "-")
        try:
            seconds = time_of(text, HERE, 1, "time")
        except BadRow:
            continue
        good += seconds is not None and (10**8 < abs(seconds) < 10**10)
    return good / max(count, 1)
