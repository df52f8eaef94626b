"""Values of rows to ids, titles, lists, numbers and times.

Each function takes the file, the line and the column for the sentence of its BadRow. With `notes`,
words that tools write for a missing value (`NULLS`) are missing, and counted; without, they are
texts like others.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from operator import methodcaller
from pathlib import Path
from uuid import UUID

from mufin.catalogs.bad_rows import BadRow
from mufin.catalogs.lists import Kind, parts
from mufin.catalogs.notes import Notes
from mufin.errors import shown

# These spellings alone: `Na` and `Nil` are names, and `-` may be a title.
NULLS = frozenset(
    "nan NaN NAN none None NONE null Null NULL n/a N/A NA #N/A <NA> <na> \\N NaT".split()
)
CUT = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE]\+\d+")  # 8.90124E+12: the other digits are lost
DAY = re.compile(r"(?:19|20)\d\d[01]\d[0-3]\d")
ZONE = re.compile(r"\s+([+-]\d\d:?\d\d)$")  # of `2026-11-28 13:45:00 +0100`
EXACT = 2**53  # whole numbers up to here are exact as floats


def getter(name: str) -> Callable[[dict], object]:
    """The function from a row to its value in column `name`, None for '' (no column); see `at`."""
    if not name:
        return lambda row: None
    if "." not in name and "[" not in name:
        return methodcaller("get", name)
    return lambda row: at(row, name)


def at(row: dict, name: str) -> object:
    """The value of column `name`: `a`, `a.b` (b in the object a) or `a[].b` (of each in a list).

    A column whose own name has these characters goes first. None if there is nothing there. An
    object or a list may be JSON in a text. Of a list, missing values are left out.
    """
    if name in row:
        return row[name]
    value: object = row
    first, _, rest = name.partition(".")
    head = first.removesuffix("[]")
    value = decoded(row.get(head))
    if first.endswith("[]"):
        items = value if isinstance(value, list | tuple) else [value]
        if not rest:
            return [item for item in items if item is not None]
        return _flat(at(item, rest) for item in map(decoded, items) if isinstance(item, dict))
    if not rest:
        return value if first in row else None
    if isinstance(value, list | tuple):  # `a.b` of a list of objects, as Parquet tools name it
        return _flat(at(item, rest) for item in value if isinstance(item, dict))
    return at(value, rest) if isinstance(value, dict) else None


def _flat(values: Iterable[object]) -> list:
    out: list = []
    for value in values:
        if isinstance(value, list | tuple):
            out.extend(value)
        elif value is not None:
            out.append(value)
    return out


def decoded(value: object) -> object:
    """The object or list that a text holds as JSON; other values as they are."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def uid_of(
    value: object, path: Path, number: int, column: str = "asin", notes: Notes | None = None
) -> str:
    """The id as a text without blanks around it; the number 1.0 and the text `1.0` are `1`.

    Raises BadRow for a missing one, for other types, and for a number that lost digits.
    """
    if text := _id(value, path, number, column, notes):
        return text
    raise _no_id(value, path, number, column)


def ids_of(
    value: object, path: Path, number: int, column: str, notes: Notes | None = None
) -> list[str]:
    """The ids of a list or of a cell (see `lists.parts`), each as `uid_of`; missing ones left out.

    Raises BadRow for anything nested, and for an id that is none.
    """
    if isinstance(value, str) and ".0" not in value and "+" not in value:
        if (plain := plain_cell(value)) is not None:
            return plain
    items = items_of(value, path, number, column, "id")
    if (plain := plain_items(items)) is not None:
        joined = "|".join(plain)
        if ".0" not in joined and "+" not in joined:
            return plain
    return [text for item in items if (text := _id(item, path, number, column, notes))]


def _id(value: object, path: Path, number: int, column: str, notes: Notes | None) -> str:
    """The id as a text, '' for a missing one."""
    if isinstance(value, str):
        text = text_of(value).strip()
    elif isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    elif isinstance(value, bytes):
        text = text_of(value).strip()
    elif value is None or value != value:
        return ""
    elif isinstance(value, float | Decimal) and value == value // 1:
        if not -EXACT < value < EXACT:
            raise _cut(value, path, number, column)
        return str(int(value))
    else:
        raise _no_id(value, path, number, column)
    if text in NULLS and notes is not None:
        notes.add(f"words for nothing in {column}, read as missing", text)
        return ""
    # Tools that hold ids as numbers write 1 so if another id of the column is missing.
    if text.endswith(".0") and notes is not None and text[:-2].isdecimal():
        notes.add(f"numbers such as 1.0 in {column}, read as 1", text)
        return text[:-2]
    if "+" in text and CUT.fullmatch(text):
        raise _cut(value, path, number, column)
    return text


def _no_id(value: object, path: Path, number: int, column: str) -> BadRow:
    return BadRow(
        f"{path} line {number} has the id {shown(value)} in {column}; "
        "an id must be a text or a whole number"
    )


def _cut(value: object, path: Path, number: int, column: str) -> BadRow:
    return BadRow(
        f"{path} line {number} has the id {shown(value)} in {column}: a spreadsheet program cut "
        "its digits; format the column as text there and export it again"
    )


def title_of(
    value: object, path: Path, number: int, column: str = "title", notes: Notes | None = None
) -> str:
    """The title as a text, '' for none; raises BadRow for an object or a list."""
    if isinstance(value, dict | list | tuple):
        raise BadRow(f"{path} line {number} has {shown(value)} in {column}; a title must be a text")
    text = text_of(value)
    if notes is not None and text in NULLS:
        notes.add(f"words for nothing in {column}, read as missing", text)
        return ""
    return text


def text_of(value: object) -> str:
    """The value as a text that UTF-8 can encode, '' for null and NaN.

    Half a surrogate pair, such as JSON's \\ud83d without its second half, becomes a question mark.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    # Only NaN differs from itself; some tools write it for an empty cell.
    return "" if value is None or value != value else text_of(str(value))


def texts_of(
    value: object,
    path: Path,
    number: int,
    column: str,
    notes: Notes | None = None,
    kind: Kind = "text",
) -> list[str]:
    """The texts of a list or of a cell (see `lists.parts`); blank ones are left out.

    Raises BadRow for anything nested.
    """
    if isinstance(value, str) and (plain := plain_cell(value)) is not None:
        return plain
    items = items_of(value, path, number, column, kind)
    if (plain := plain_items(items)) is not None:
        return plain
    out = []
    for item in items:
        if isinstance(item, dict | list | tuple):
            raise nested(item, path, number, column)
        if text := text_of(item).strip():
            if notes is not None and text in NULLS:
                notes.add(f"words for nothing in {column}, read as missing", text)
            else:
                out.append(text)
    return out


def whole_texts_of(
    value: object, path: Path, number: int, column: str, notes: Notes | None = None
) -> list[str]:
    """The texts of a cell or a list, as `title_of` reads each; blank ones are left out.

    A text is one, whatever bars and line breaks it has, but for a list that begins with `[`. Raises
    BadRow for an object, and for a list inside a list.
    """
    items: list | tuple = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        found = parts(value, "text")
        items = [value] if found is None else found  # a text may begin so too
    for item in items:
        if isinstance(item, dict | list | tuple):
            raise nested(item, path, number, column)
    texts = (title_of(item, path, number, column, notes) for item in items)
    return [text for text in texts if text.strip()]


def plain_cell(text: str) -> list[str] | None:
    """The items between bars of a cell without blanks and other separators; None for other cells.

    Without missing ones. Nearly all cells are plain, and this takes a fraction of the time.
    """
    if not text:
        return []
    if (
        not text.isascii()
        or "," in text
        or ";" in text
        or " " in text
        or "[" in text
        or "\n" in text
        or "\t" in text
        or "\r" in text
    ):
        return None
    items = text.split("|")
    if "" in items:
        items = [item for item in items if item]
    return items if NULLS.isdisjoint(items) else None


def plain_items(items: list | tuple) -> list[str] | None:
    """The texts without blanks around them, None if some are not texts of ASCII, or are missing.

    Nearly all lists are plain, and this takes a fraction of the time of looking at each item.
    """
    try:
        if not "".join(items).isascii():
            return None
    except TypeError:  # not all are texts
        return None
    out = [item.strip() for item in items]
    if not all(out):
        out = [text for text in out if text]
    return out if NULLS.isdisjoint(out) else None


def items_of(value: object, path: Path, number: int, column: str, kind: Kind) -> list | tuple:
    """The items of a list or of a cell; a single value is one item."""
    if isinstance(value, str):
        items = parts(value, kind)
        if items is None:
            raise BadRow(
                f"{path} line {number} has {shown(value.strip()[:60])} in {column}, which is not a "
                "JSON list; correct it, or separate the values by |"
            )
        return items
    if isinstance(value, dict):
        raise BadRow(f"{path} line {number} has an object in {column}; it must be a list")
    return value if isinstance(value, list | tuple) else [value]


def nested(item: object, path: Path, number: int, column: str) -> BadRow:
    inside = next(iter(item), None) if isinstance(item, dict) else None
    how = f", or name the field, such as {column}[].{inside}" if isinstance(inside, str) else ""
    return BadRow(
        f"{path} line {number} has {shown(item, 60)} inside {column}; "
        f"it must be a list of texts{how}"
    )


def number_of(
    value: object, path: Path, number: int, column: str, notes: Notes | None = None
) -> float | None:
    """The finite number, None for a missing one; raises BadRow for anything else."""
    text = text_of(value).strip() if not isinstance(value, bool | dict | list | tuple) else "?"
    if not text or text in NULLS:
        return None
    try:
        result = float(text)
    except ValueError:
        result = float("nan")
    if result - result != 0:  # infinite, or not a number
        raise BadRow(
            f"{path} line {number} has {shown(value)} in {column}; it must be a number, such as 2.5"
        )
    return result


def time_of(
    value: object, path: Path, number: int, column: str, notes: Notes | None = None
) -> float | None:
    """Seconds since 1970 (UTC), None for a missing time; raises BadRow for anything else.

    Numbers are seconds, or milliseconds (microseconds, nanoseconds) where seconds would be after
    the year 5138. Texts are such numbers or ISO 8601 dates and times, UTC where no zone is given;
    eight digits are a date.
    """
    if isinstance(value, datetime.datetime):
        return _utc(value)
    if isinstance(value, datetime.date):
        return _utc(datetime.datetime(value.year, value.month, value.day))
    if value is None or isinstance(value, bool | dict | list | tuple):
        text = "" if value is None else "?"
    else:
        text = text_of(value).strip()
    if not text or text in NULLS:
        return None
    try:
        if not DAY.fullmatch(text):
            return _seconds(float(text))
    except ValueError:
        pass
    try:
        text = ZONE.sub(r"\1", text.removesuffix(" UTC"))
        return _utc(datetime.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise BadRow(
            f"{path} line {number} has {shown(value)} in {column}; a time must be seconds since "
            "1970, or a date such as 2026-11-28 or 2026-11-28T13:45:00"
        ) from None


def _seconds(value: float) -> float:
    if value - value != 0:
        raise ValueError
    for power in (1, 1e3, 1e6, 1e9):
        if abs(value) < 1e11 * power:
            return value / power
    raise ValueError


def _utc(value: datetime.datetime) -> float:
    return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
