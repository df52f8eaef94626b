"""Tables of the forms: columns by any of the names that a tool writes; wrong files are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mufin.catalogs.attribute_cells import Values, attribute_of
from mufin.catalogs.bad_rows import BadRow, BadRows
from mufin.catalogs.cells import CUT, NULLS, text_of, whole_texts_of
from mufin.catalogs.column_names import no_column
from mufin.catalogs.forms.recognition import folded, recognised
from mufin.catalogs.notes import Notes
from mufin.catalogs.rows import rows_of
from mufin.errors import MufinError

R = TypeVar("R")
T = TypeVar("T")
ATTRIBUTES = "attributes"  # the entry of a row with the values of the columns for filters
TEXTS = "texts"  # that of the columns of texts beside the title
Row = tuple[Path, int, dict[str, object]]  # file, line or row number, {our name: value}

# `Label (product.metafields.a.b)`: the label is in the shop's language, the name in brackets is not
METAFIELD = re.compile(r"\((product\.metafields\.[^()]+)\)\s*$")


@dataclass(frozen=True, slots=True)
class Table:
    """A kind of file: what it is called, and its columns by the names that tools give them."""

    what: str  # such as `Shopify's export of products`
    columns: Mapping[str, tuple[str, ...]]  # {our name: the names of the tools, the best first}
    needed: tuple[str, ...]  # of our names; a file without one of them is another file
    remedy: str  # how to get such a file
    foreign: tuple[str, ...] = ()  # columns that only another file has

    def found(self, names: Iterable[object]) -> dict[str, str]:
        """{our name: the column of the file}, of those columns that the file has.

        Case, blanks, hyphens and underscores do not count: feeds have `image_link` or `image link`.
        """
        there: dict[str, str] = {}
        for name in map(str, names):
            for text in (name, *METAFIELD.findall(name)):
                there.setdefault(folded(text), name)
        return {
            key: there[folded(name)]
            for key, known in self.columns.items()
            for name in reversed(known)  # the last assignment is of the best name
            if folded(name) in there
        }

    def check(self, path: Path, names: list[object]) -> None:
        """Raises MufinError if the columns `names` of a file are not those of this table."""
        found = self.found(names)
        lacking = [self.columns[key][0] for key in self.needed if key not in found]
        foreign = {folded(name) for name in self.foreign} & {folded(name) for name in names}
        if not lacking and not foreign:
            return
        other = recognised(names)
        if other and other.what != self.what:
            raise MufinError(f"{path} is {other.what}, not {self.what}; {other.use}")
        has = " ".join(", ".join(map(str, names[:50])).split())
        has = f"{has[:60]}..." if len(has) > 60 else has
        column = f"no column {lacking[0]!r}" if lacking else f"a column {min(foreign)!r}"
        raise MufinError(
            f"{path} has {column} (it has {has}), so it is not {self.what}; {self.remedy}"
        )


def rows_by_name(
    files: Iterable[Path],
    table: Table,
    notes: Notes,
    encoding: str | None = None,
    bad: BadRows | None = None,
    only: Iterable[str] = (),
    attributes: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Iterator[Row]:
    """The rows of the files by our names for columns; a column that is missing has no entry.

    `only` are the columns that columnar files read; () is all. The values of the columns
    `attributes`, which are named as in the file, have the entry ATTRIBUTES, a list; those of
    `texts` likewise TEXTS, {column: value}. Raises MufinError if a file lacks one of these, or a
    column that the table needs, with what the file looks like.
    """
    for path in files:
        names: tuple[object, ...] | None = None
        columns: dict[str, str] = {}
        kept: list[str] = []
        further: list[str] = []
        for number, row in rows_of(path, notes, encoding=encoding, columns=only, bad=bad):
            if tuple(row) != names:  # JSON lines need not all have the same names
                if names is None:
                    table.check(path, list(row))
                    kept = columns_of(attributes, path, list(row))
                    further = columns_of(texts, path, list(row), TEXTS)
                names, columns = tuple(row), table.found(row)
            if bad is not None:
                bad.rows += 1
            found = {key: row[column] for key, column in columns.items()}
            if kept:
                found[ATTRIBUTES] = [row.get(name) for name in kept]
            if further:
                found[TEXTS] = {name: row.get(name) for name in further}
            yield path, number, found


def columns_of(
    wanted: Sequence[str], where: Path, names: list[object], key: str = ATTRIBUTES
) -> list[str]:
    """The columns of a file that are `wanted`, with any case, blanks, hyphens, underscores.

    Raises MufinError for one that the file does not have, which the setting `key` names.
    """
    there = {folded(str(name)): str(name) for name in reversed(names)}
    for name in wanted:
        if folded(name) not in there:
            raise no_column(str(where), key, name, list(map(str, names)), (), True)
    return [there[folded(name)] for name in wanted]


def values_of(attributes: Sequence[str], row: Mapping[str, object], notes: Notes) -> Values:
    """The attributes of a row of `rows_by_name`; () if there are none."""
    values = row.get(ATTRIBUTES)
    if not isinstance(values, list):
        return ()
    return tuple(attribute_of(value, name, notes) for name, value in zip(attributes, values))


def take_texts(row: dict[str, object], path: Path, number: int, notes: Notes) -> list[str]:
    """The texts beside the title of a row of `rows_by_name`, without their entry; raises BadRow."""
    values = row.pop(TEXTS, None)
    if not isinstance(values, dict):
        return []
    texts = (whole_texts_of(value, path, number, name, notes) for name, value in values.items())
    return [text for some in texts for text in some]


def joined(values: Values, more: Values) -> Values:
    """The attributes of a product of several rows: of each the first one that is there."""
    if not values or not more:
        return values or more
    return tuple(b if a is None else a for a, b in zip(values, more))


def parsed(
    rows: Iterable[tuple[Path, int, R]], bad: BadRows | None, parse: Callable[[Path, int, R], T]
) -> Iterator[T]:
    """What `parse` makes of each row of `rows_by_name`; it raises BadRow for a faulty one."""
    for path, number, row in rows:
        try:
            result = parse(path, number, row)
        except BadRow as error:
            drop(error, bad)
        else:
            yield result


def cell(value: object) -> str:
    """The text of a cell without blanks around it, '' for none and for words for nothing."""
    if isinstance(value, float) and value == value // 1:  # of a spreadsheet: 1.0 is 1
        value = int(value)
    text = text_of(value).strip()
    return "" if text in NULLS else text


def codes(texts: Iterable[str], notes: Notes) -> list[str]:
    """SKUs and barcodes as the shop has them; those that lost digits are left out and counted.

    An apostrophe before a number is of a spreadsheet program, which would else drop its zeros.
    """
    out = []
    for text in texts:
        text = text[1:] if text.startswith("'") else text
        if CUT.fullmatch(text):
            notes.add("codes that a spreadsheet program cut, such as 8.90124E+12, dropped", text)
        elif text:
            out.append(text)
    return out


def drop(error: BadRow, bad: BadRows | None) -> None:
    """Counts a row of `rows_by_name` as faulty, or raises its error."""
    if bad is None:
        raise error
    bad.rows -= 1  # `rows_by_name` has counted it
    bad.drop(error)


def first_look(bad: BadRows | None) -> BadRows:
    """What `bad` is for a first reading of files that are read twice: it counts nothing."""
    return BadRows(Notes(), bad.allowed if bad else 0.0)
