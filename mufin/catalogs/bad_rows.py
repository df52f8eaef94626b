"""Rows that cannot be used: the first one stops, or a share of them is dropped and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mufin.catalogs.notes import Notes
from mufin.errors import MufinError

T = TypeVar("T")
Row = dict[str, object]
BAD = "bad rows, dropped"


class BadRow(MufinError):
    """One row cannot be used; the rows after it may be."""


class BadRows:
    """What to do with bad rows: `allowed` is the share of rows that may be bad.

    If it is 0, the first bad row raises its own sentence, which then names download.bad_rows.
    Otherwise each is dropped and counted in `notes` with one example, and `check` raises MufinError
    at the end of all files if they are more than the share.

    A reader of rows uses it so:

        bad = BadRows(notes, download.bad_rows)  # one for all files
        for file in files:
            rows = rows_of(file, notes, encoding=encoding, bad=bad)
            yield from bad.kept(rows, partial(parse, file))
        bad.check()

    where `parse(file, number, row)` returns what it makes of a row, or raises BadRow, as the
    functions of `cells` do. Errors that are not of one row (a broken file, a missing column) are
    MufinErrors and always stop.
    """

    def __init__(self, notes: Notes, allowed: float = 0.0):
        self.notes, self.allowed = notes, allowed
        self.rows = self.bad = 0
        self.first = ""

    def drop(self, error: BadRow) -> None:
        """Counts a bad row; raises it if none is allowed."""
        if not self.allowed:
            raise MufinError(
                f"{error}, or set download.bad_rows to the share of such rows to drop"
            ) from None
        self.rows += 1
        self.bad += 1
        self.first = self.first or str(error)
        self.notes.add(BAD, str(error))

    def kept(self, rows: Iterable[tuple[int, Row]], parse: Callable[[int, Row], T]) -> Iterator[T]:
        """What `parse` makes of each row, without the bad ones."""
        for number, row in rows:
            try:
                parsed = parse(number, row)
            except BadRow as error:
                self.drop(error)
            else:
                self.rows += 1
                yield parsed

    def check(self) -> None:
        """Raises MufinError if more than the allowed share of the rows was bad."""
        if self.bad > self.allowed * self.rows:
            raise MufinError(
                f"{self.bad} of {self.rows} rows are bad, more than download.bad_rows "
                f"({self.allowed:g}); the first: {self.first[:150]}"
            )
