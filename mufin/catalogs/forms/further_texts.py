"""Texts beside the title in rows that differ in their columns, as JSON lines do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mufin.catalogs.cells import whole_texts_of
from mufin.catalogs.column_names import no_column
from mufin.catalogs.notes import Notes

MANY = 200  # names of columns that are remembered for an error text


class FurtherTexts:
    """Reads the columns `names` of rows, and knows afterwards which of them no row had."""

    def __init__(self, names: Sequence[str], notes: Notes):
        self.names, self.notes = names, notes
        self.unseen = dict.fromkeys(names)  # columns that no row had so far
        self.seen: dict[str, None] = {}  # columns of the rows
        self.path = Path()

    def of(self, row: Mapping[str, object], path: Path, number: int) -> list[str]:
        """The texts of a row, in the order of the columns; raises BadRow."""
        if self.unseen:
            self.path = path
            if len(self.seen) < MANY:
                self.seen |= dict.fromkeys(map(str, row))
            for name in self.unseen.keys() & row.keys():
                del self.unseen[name]
        out: list[str] = []
        for name in self.names:
            out += whole_texts_of(row.get(name), path, number, name, self.notes)
        return out

    def check(self) -> None:
        """After all rows: raises MufinError for a column that none of them had."""
        for name in self.unseen:
            raise no_column(str(self.path), "texts", name, self.seen, (), True)
