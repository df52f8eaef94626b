"""Labels that are no products: queries, tags or categories, from files of any form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from mufin.catalogs.bad_rows import BadRows, Row
from mufin.catalogs.cells import getter, title_of, uid_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.rows import rows_of
from mufin.errors import MufinError, shown


def label_texts(
    paths: Iterable[Path],
    columns: tuple[str, str],
    prefix: str,
    notes: Notes,
    bad: BadRows,
    encoding: str | None = None,
) -> Iterator[tuple[str, str]]:
    """(`prefix` + id, text) of each label of the files; `columns` are those of id and text.

    Raises MufinError if a file lacks a column, and for a bad row as `bad` says.
    """
    for path in paths:
        rows = rows_of(path, notes, encoding=encoding, columns=columns, bad=bad)
        for uid, text in bad.kept(rows, partial(_label, path, columns, notes)):
            yield prefix + uid, text
    bad.check()


def _label(
    path: Path, columns: tuple[str, str], notes: Notes, number: int, row: Row
) -> tuple[str, str]:
    for key, name in zip(("id", "text"), columns):
        if name not in row and name.partition(".")[0].removesuffix("[]") not in row:
            raise MufinError(
                f"{path} line {number} has no column {shown(name, 40)} (download.labels.{key}); it "
                f"has {', '.join(shown(column, 30) for column in list(row)[:5])}"
            )
    uid = uid_of(getter(columns[0])(row), path, number, columns[0], notes)
    return uid, title_of(getter(columns[1])(row), path, number, columns[1], notes)
