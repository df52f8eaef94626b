"""MovieLens (GroupLens): movies and ratings of the releases 100K, 1M, 10M, 20M, 25M and latest.

1M and 10M have `::` between the values and no header, 100K has u.item (`|`) and u.data (tabs), the
newer ones are CSV. 100K and 1M are latin-1, the others UTF-8. There are no pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mufin.catalogs.bad_rows import BadRow, BadRows
from mufin.catalogs.cells import number_of, text_of, time_of, title_of, uid_of
from mufin.catalogs.forms.tables import Row, Table, drop, parsed, rows_by_name
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.text_files import latin1_lines_of

MOVIES = Table(
    "MovieLens' movies.csv or movies.dat",
    {"id": ("movieId",), "title": ("title",), "genres": ("genres",)},
    ("id", "title", "genres"),
    "give movies.csv, movies.dat or u.item",
)
RATINGS = Table(
    "MovieLens' ratings.csv or ratings.dat",
    {
        "user": ("userId",),
        "id": ("movieId",),
        "rating": ("rating",),
        "time": ("timestamp",),
    },
    ("user", "id", "rating"),
    "give ratings.csv, ratings.dat or u.data",
)
LIKED = 4.0  # the lowest rating that counts as liked, as usual where ratings become implicit
NO_GENRES = "(no genres listed)"
GENRES = (  # u.item has one column of 0 and 1 for each
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
).split("|")


def products(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[Product]:
    """The movies: titles with their year, as in `Toy Story (1995)`; genres are the category."""
    yield from parsed(_movies(files, notes, encoding, bad), bad, partial(_product, notes))


def _product(notes: Notes, path: Path, number: int, row: dict[str, object]) -> Product:
    genres = text_of(row.get("genres")).split("|")
    return Product(
        uid_of(row.get("id"), path, number, "movieId", notes),
        title_of(row.get("title"), path, number, "title", notes).strip(),
        category=[genre for genre in genres if genre and genre != NO_GENRES],
    )


def interactions(
    files: list[Path], notes: Notes, *, encoding: str | None = None, bad: BadRows | None = None
) -> Iterator[tuple[str, str, float | None, float]]:
    """(user, movie, seconds, 1) of each rating of at least LIKED; a user is one basket."""
    rows = _ratings(files, notes, encoding, bad)
    for user, movie, stars, time in parsed(rows, bad, partial(_rating, notes)):
        if stars is None or stars < LIKED:
            notes.add(f"ratings below {LIKED:g}, dropped", f"user {user}, movie {movie}")
        else:
            yield user, movie, time, 1.0


def _rating(
    notes: Notes, path: Path, number: int, row: dict[str, object]
) -> tuple[str, str, float | None, float | None]:
    return (
        uid_of(row.get("user"), path, number, "userId", notes),
        uid_of(row.get("id"), path, number, "movieId", notes),
        number_of(row.get("rating"), path, number, "rating", notes),
        time_of(row.get("time"), path, number, "timestamp", notes),
    )


def _movies(
    files: list[Path], notes: Notes, encoding: str | None, bad: BadRows | None
) -> Iterator[Row]:
    for path in files:
        separator = _separator(path)
        if separator == "|":
            for number, values in _split(path, "|", 5 + len(GENRES), MOVIES, bad):
                flags = zip(GENRES, values[5:])
                genres = "|".join(name for name, flag in flags if flag == "1")
                yield path, number, {"id": values[0], "title": values[1], "genres": genres}
        elif separator:
            for number, values in _split(path, separator, 3, MOVIES, bad):
                yield path, number, dict(zip(("id", "title", "genres"), values))
        else:
            yield from rows_by_name([path], MOVIES, notes, encoding, bad)


def _ratings(
    files: list[Path], notes: Notes, encoding: str | None, bad: BadRows | None
) -> Iterator[Row]:
    names = ("user", "id", "rating", "time")
    for path in files:
        separator = _separator(path)
        if separator:
            for number, values in _split(path, separator, 4, RATINGS, bad):
                yield path, number, dict(zip(names, values))
        else:
            yield from rows_by_name([path], RATINGS, notes, encoding, bad)


def _separator(path: Path) -> str:
    """What separates the values of a release without a header; '' for a table with one."""
    for _, line in latin1_lines_of(path):
        if "::" in line:
            return "::"
        first = line.partition("|")[0] if "|" in line else line.partition("\t")[0]
        if first.isdecimal():
            return "|" if "|" in line else "\t"
        return ""
    return ""


def _split(
    path: Path, separator: str, count: int, table: Table, bad: BadRows | None
) -> Iterator[tuple[int, list[str]]]:
    """(line, values) of each line; titles may hold colons, so only `::` separates."""
    for number, line in latin1_lines_of(path):
        line = line.rstrip("\r\n")
        if not line:
            continue
        if bad is not None:
            bad.rows += 1
        values = _text(line).split(separator)
        if len(values) == count:
            yield number, values
            continue
        error = BadRow(
            f"{path} line {number} has {len(values)} values separated by {separator!r}, not "
            f"{count}, so it is not of {table.what}; {table.remedy}"
        )
        drop(error, bad)


def _text(line: str) -> str:
    """A line that was read as latin-1, as UTF-8 if it is that: 10M is, 1M and 100K are not."""
    if line.isascii():
        return line
    try:
        return line.encode("latin-1").decode()
    except UnicodeDecodeError:
        return line
