"""Rows of JSON: one object per line, a list, objects one after the other, a list under a key."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

from mufin.catalogs import text_files
from mufin.catalogs.bad_rows import BadRow, BadRows, Row
from mufin.catalogs.column_names import top
from mufin.catalogs.json_text import JsonText, Twice
from mufin.catalogs.opening import Part
from mufin.catalogs.text_files import lines_of, text_file
from mufin.errors import MufinError

PLAIN = json.JSONDecoder()
Form = Literal["lines", "list", "objects", "under a key"]


def json_rows(
    part: Part, columns: Iterable[str], encoding: str | None, bad: BadRows
) -> Iterator[tuple[int, Row]]:
    """(line on which it begins, object) of each row.

    A line that is not JSON is a bad row; a broken text of another form raises MufinError.
    """
    once = {top(name) for name in columns} | set(columns)
    form = form_of(part, once, encoding)
    if form == "lines":
        yield from _line_rows(part, once, encoding, bad)
        return
    for number, row in _item_rows(part, form, once, encoding):
        if isinstance(row, dict):
            yield number, row
        else:
            bad.drop(
                BadRow(
                    f"{part.shown} line {number} is a JSON {type(row).__name__}, not an object; "
                    "a product is an object"
                )
            )


def form_of(part: Part, columns: Collection[str] = (), encoding: str | None = None) -> Form:
    """How the objects of a JSON file are written.

    An object that is alone in its file is a row if it has one of `columns`; else the rows are the
    objects of a list in it, if there is one.
    """
    with text_file(part, encoding) as text:
        line = "\n"
        while line and not line.strip():
            line = text.readline(text_files.LONGEST + 1)
        if line.lstrip().startswith("["):
            return "list"
        if len(line) > text_files.LONGEST:
            return "under a key"
        whole = _whole(line)
        if whole is None:
            return _form_of_objects(part, columns, encoding)
        if any(rest.strip() for rest in iter(lambda: text.read(text_files.PIECE), "")):
            return "lines"
    return "under a key" if _encloses(whole, columns) else "lines"


def _whole(line: str) -> dict | None:
    """The object on a line ({} if it is none), None if it goes on in the next line."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        goes_on = (
            error.pos >= len(line.rstrip()) and line.endswith("\n") and line.lstrip()[:1] == "{"
        )
        return None if goes_on else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _form_of_objects(part: Part, columns: Collection[str], encoding: str | None) -> Form:
    """Whether objects follow one another, or one has a list of them."""
    with text_file(part, encoding) as file:
        text = JsonText(file, part.shown)
        try:
            first = text.item()
        except MufinError:  # too long, or broken: its reader says where
            return "under a key" if len(text.text) > text_files.LONGEST else "objects"
        alone = not text.next()
    return "under a key" if alone and _encloses(first, columns) else "objects"


def _encloses(value: object, columns: Collection[str]) -> bool:
    """Whether the rows are in a list of this object."""
    return isinstance(value, dict) and not any(c in value for c in columns) and _has_list(value)


def _has_list(value: dict, depth: int = 0) -> bool:
    """Whether it, or an object in it, has a list of objects."""
    for inner in value.values():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return True
        if isinstance(inner, dict) and depth < 8 and _has_list(inner, depth + 1):
            return True
    return False


def _line_rows(
    part: Part, once: set[str], encoding: str | None, bad: BadRows
) -> Iterator[tuple[int, Row]]:
    yield from objects_of(lines_of(part, encoding), part.shown, bad, _decoder(once))


def objects_of(
    lines: Iterable[tuple[int, str]],
    path: Path,
    bad: BadRows,
    decoder: json.JSONDecoder = PLAIN,
) -> Iterator[tuple[int, Row]]:
    """(number, object) of each line; one that is not an object is a bad row."""
    for number, line in lines:
        try:
            row = json_object(path, number, line, decoder)
        except BadRow as error:
            bad.drop(error)
        else:
            yield number, row


def _item_rows(
    part: Part, form: Form, once: set[str], encoding: str | None
) -> Iterator[tuple[int, object]]:
    decoder = _decoder(once)
    with text_file(part, encoding) as file:
        text = JsonText(file, part.shown, decoder)
        if form == "list":
            yield from text.items_of_list()
        elif form == "objects":
            yield from text.items()
        else:
            yield from _under_key(part, text, once, encoding)


def _under_key(
    part: Part, text: JsonText, once: set[str], encoding: str | None
) -> Iterator[tuple[int, object]]:
    """The list whose objects have a column that is wanted; else the first list of objects."""
    found = False
    for item in text.items_under_key(lambda row: not once or not once.isdisjoint(row)):
        found = True
        yield item
    if not found:
        with text_file(part, encoding) as file:
            again = JsonText(file, part.shown, text.decoder)
            yield from again.items_under_key(lambda row: True)


def json_object(
    path: Path, number: int, line: str, decoder: json.JSONDecoder = PLAIN
) -> dict[str, object]:
    """The JSON object of a line; raises BadRow for anything else."""
    try:
        row = decoder.decode(line)
    except json.JSONDecodeError as error:
        raise BadRow(
            f"{path} line {number} is not JSON ({error.msg} at column {error.colno}); "
            "is the line cut off? correct or delete it"
        ) from None
    except Twice as error:
        raise BadRow(f"{path} line {number} has {error}; keep one of them") from None
    # A number with thousands of digits, or thousands of nested brackets.
    except (ValueError, RecursionError):
        raise BadRow(
            f"{path} line {number} is JSON, but not of a product; correct or delete it"
        ) from None
    if not isinstance(row, dict):
        raise BadRow(
            f"{path} line {number} is a JSON {type(row).__name__}, not an object; "
            "write one product per line"
        )
    return row


def _decoder(once: set[str]) -> json.JSONDecoder:
    """Raises Twice for a name in `once` that an object has twice: Python would keep the last."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            for name in row:
                if name in once and names.count(name) > 1:
                    raise Twice(f"{name!r} {names.count(name)} times")
        return row

    return json.JSONDecoder(object_pairs_hook=unique) if once else PLAIN
