"""A catalog of your own: files of any form, with columns that the settings name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mufin.catalogs.attribute_cells import attribute_of
from mufin.catalogs.bad_rows import BadRow, BadRows, Row
from mufin.catalogs.cells import getter, ids_of, texts_of, title_of, uid_of, whole_texts_of
from mufin.catalogs.column_names import no_column, suggested, top
from mufin.catalogs.image_cells import Keep, images_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.opening import Part, parts_of
from mufin.catalogs.parquet_rows import names_of_parquet
from mufin.catalogs.product import Product
from mufin.catalogs.rows import kind_of, rows_of_part
from mufin.errors import MufinError, shown

MANY = 200  # names of columns that are remembered for an error text


@dataclass(frozen=True)
class Names:
    """What the columns are called; see `download.columns`."""

    id: str
    title: str  # '' for none
    images: list[str]
    related: dict[str, float]  # the weight of each column of related ids
    category: str  # '' for none
    attributes: Sequence[str] = ()  # kept for filters
    texts: Sequence[str] = ()  # of texts beside the title

    def keys(self) -> dict[str, str]:
        """{column: its setting}, in their order."""
        pairs = [("id", self.id), ("title", self.title)]
        pairs += [("images", name) for name in self.images]
        pairs += [("related", name) for name in self.related]
        pairs.append(("category", self.category))
        pairs += [("attributes", name) for name in self.attributes]
        pairs += [("texts", name) for name in self.texts]
        return {name: key for key, name in reversed(pairs) if name}


class OwnCatalog:
    """Reads products from files, and knows afterwards which columns no file had.

    `keep` stores an image that is given as bytes and returns its reference. A column of `optional`
    settings may be missing in all files.
    """

    def __init__(
        self,
        names: Names,
        notes: Notes,
        *,
        encoding: str | None = None,
        bad: BadRows | None = None,
        keep: Keep | None = None,
        optional: Collection[str] = (),
    ):
        self.names, self.notes, self.encoding, self.keep = names, notes, encoding, keep
        self.bad, self.optional = bad or BadRows(notes), optional
        self.keys = names.keys()
        self.columns = list(self.keys)
        self.unseen = dict.fromkeys(self.columns)  # columns that no row had so far
        self.seen: dict[str, None] = {}  # columns of the files
        self.empty: list[Path] = []  # files without a row
        self.first = Path()  # the first file
        self.count = 0

    def products(self, path: Path, alone: bool = False) -> Iterator[Product]:
        """The products of a file, or of all files in a zip.

        `alone`: there are no other files, so that a missing column is an error at the first row.
        Raises MufinError with the file, the line and the remedy; a bad row only as `bad` says.
        """
        parts = parts_of(path)
        for part in parts:
            yield from self._of_part(part, alone and len(parts) == 1)

    def check(self) -> None:
        """After all files: raises MufinError if none had a product, or a column that is required.

        Columns that only some files lack, or that are not required, are counted.
        """
        if not self.count and self.empty:
            raise MufinError(f"{self.empty[0]} is empty; a catalog has one product per line")
        for path in self.empty:
            self.notes.add("files without a product", str(path))
        for name in list(self.unseen):
            self._missing(name, str(self.first), list(self.seen))

    def _of_part(self, part: Part, alone: bool) -> Iterator[Product]:
        kind = kind_of(part, self.encoding)
        rows = rows_of_part(
            part, self.notes, encoding=self.encoding, columns=self.columns, bad=self.bad, kind=kind
        )
        rows = self._checked(part, rows, kind, alone)
        yield from self.bad.kept(rows, _Parser(self, part.shown))

    def _checked(
        self, part: Part, rows: Iterator[tuple[int, Row]], kind: str, alone: bool
    ) -> Iterator[tuple[int, Row]]:
        """The rows, of which the first must have the column of the id."""
        count = 0
        for number, row in rows:
            if not count:
                self._begin(part, number, row, kind, alone)
            count += 1
            if self.unseen:
                self._look(row)
            yield number, row
        self.count += count
        if not count:
            self.empty.append(part.shown)

    def _begin(self, part: Part, number: int, row: Row, kind: str, alone: bool) -> None:
        names = names_of_parquet(part) if kind == "parquet" else list(row)
        if not self.seen:
            self.first = part.shown
        self.seen |= dict.fromkeys(list(map(str, names))[: max(MANY - len(self.seen), 0)])
        where = f"{part.shown} line {number}" if kind == "json" else str(part.shown)
        if top(self.names.id) not in names and self.names.id not in names:
            raise no_column(where, "id", self.names.id, names, self.keys, False)
        if kind == "json":  # there, rows differ in their columns
            return
        for name in self.columns:
            if name not in names and top(name) not in names:
                if alone and name in self.unseen:
                    self._missing(name, where, names)
                else:
                    self.notes.add(f"files without the column {name}", str(part.shown))

    def _look(self, row: Row) -> None:
        """Strikes the columns that a row has from those that were not seen so far."""
        for name in list(self.unseen):
            if name in row or (top(name) in row and getter(name)(row) not in (None, [])):
                del self.unseen[name]

    def _missing(self, name: str, where: str, names: list[str]) -> None:
        """Raises MufinError for a column that no file has, or counts it."""
        key = self.keys[name]
        if key in ("images", "related", "attributes", "texts") and key not in self.optional:
            raise no_column(where, key, name, names, self.keys, True)
        if near := suggested(key, name, names, self.keys):
            if key == "title":
                raise no_column(where, key, name, names, self.keys, False)
            self.notes.add(f"columns that no file has (download.columns.{key}: {near}?)", name)
        elif key not in self.optional:
            self.notes.add(f"columns that no file has (download.columns.{key})", name)
        self.unseen.pop(name, None)


class _Parser:
    """Makes products of the rows of one file."""

    def __init__(self, catalog: OwnCatalog, path: Path):
        names, self.path = catalog.names, path
        self.notes, self.keep = catalog.notes, catalog.keep
        self.weighted = any(weight != 1 for weight in names.related.values())
        self.single = len(names.related) == 1 and not self.weighted
        self.id, self.title, self.category = names.id, names.title, names.category
        self.get_id, self.get_title = getter(names.id), getter(names.title)
        self.get_category = getter(names.category)
        self.images = [(name, getter(name)) for name in names.images]
        self.related = [(name, getter(name), weight) for name, weight in names.related.items()]
        self.attributes = [(name, getter(name)) for name in names.attributes]
        self.texts = [(name, getter(name)) for name in names.texts]
        self.kind: type | None = None  # of the ids

    def __call__(self, number: int, row: Row) -> Product:
        """The product of a row; raises BadRow."""
        path, notes = self.path, self.notes
        value = self.get_id(row)
        uid = uid_of(value, path, number, self.id, notes)
        self._check_kind(value, number)
        title = title_of(self.get_title(row), path, number, self.title, notes)
        images: list[str] = []
        for name, get in self.images:
            if (value := get(row)) is not None:
                images += images_of(value, path, number, name, notes, self.keep)
        weights: list[float] = []
        if self.single:
            name, get, _ = self.related[0]
            related = ids_of(get(row), path, number, name, notes)
        else:
            related, weights = self._related(number, row)
        category = texts_of(self.get_category(row), path, number, self.category, notes)
        product = Product(uid, title, images, related, category, weights)
        if self.attributes:
            product.attributes = tuple(
                attribute_of(get(row), name, notes) for name, get in self.attributes
            )
        for name, get in self.texts:
            product.texts += whole_texts_of(get(row), path, number, name, notes)
        return product

    def _check_kind(self, value: object, number: int) -> None:
        """Raises BadRow for an id of another type: 7 and "7" would silently become one product."""
        kind = str if isinstance(value, str) else int
        self.kind = self.kind or kind
        if kind is not self.kind:
            raise BadRow(
                f"{self.path} line {number} has the id {shown(value)}, of another type than the "
                f"ids before it; make all ids in {self.id} texts"
            )

    def _related(self, number: int, row: Row) -> tuple[list[str], list[float]]:
        """The related ids of several columns, each once, and the sum of the weights of each."""
        weights: dict[str, float] = {}
        for name, get, weight in self.related:
            for uid in dict.fromkeys(ids_of(get(row), self.path, number, name, self.notes)):
                weights[uid] = weights.get(uid, 0.0) + weight
        return list(weights), list(weights.values()) if self.weighted else []
