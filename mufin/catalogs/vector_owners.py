"""Which product each row of an array of vectors belongs to, from a file of ids or of rows.

The products are named by their ids, or by their row in a released split, as ViXML publishes it: an
array, saved by NumPy, of -1 or of a list of rows of the vectors per row of train, test or label.
"""

from __future__ import annotations

import array
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from mufin.catalogs.json_text import json_items
from mufin.catalogs.pickled_lists import pickled_list
from mufin.catalogs.text_files import text_file
from mufin.errors import MufinError, shown
from mufin.ragged import Lists, offsets_of

LONGEST_ID = 2**12  # characters
LARGEST = 2**31  # bytes of a JSON object, which is in memory as a whole
AT_ONCE = 100_000  # ids that are Python texts at the same time
SPLIT = re.compile(r"(trn|train|tst|test|lbl|labels?)(?![a-z])", re.I)  # begins a file's name
NAMES = {"trn": "train", "tst": "test", "lbl": "label", "labels": "label"}


@dataclass(frozen=True, slots=True)
class Owners:
    """The product of each vector of one file."""

    ids: pl.Series  # (m,) String; null: none
    rows: Lists  # (m,) rows of the vectors


def split_of(path: Path) -> str:
    """The split that the name of a file begins with: train, test or label; '' for none."""
    found = SPLIT.match(path.name)
    if found is None:
        return ""
    name = found[1].lower()
    return NAMES.get(name, name)


def owners_of(
    path: Path, vectors: Path, count: int, splits: Mapping[str, pa.ChunkedArray]
) -> Owners:
    """The products of the `count` rows of the file `vectors`, as `path` names them.

    `splits` has the ids of the rows of train, test and label, where the data has a split. Raises
    MufinError for a file that is broken or does not fit.
    """
    with open(path, "rb") as file:
        head = file.read(6)
    if head == np.lib.format.MAGIC_PREFIX:
        entries: pl.Series | dict | list = _numpy_entries(path)
    elif path.name.lower().removesuffix(".gz").endswith(".json"):
        entries = _json_entries(path)
    else:
        entries = _lines(path)
    if isinstance(entries, pl.Series):
        return _one_each(entries, path, vectors, count)
    if isinstance(entries, dict):
        ids = pl.Series(list(entries), dtype=pl.String)
        return Owners(ids, _rows(entries.values(), path, vectors, count))
    ids = _of_split(path, len(entries), splits)
    return Owners(ids, _rows(entries, path, vectors, count))


def _one_each(ids: pl.Series, path: Path, vectors: Path, count: int) -> Owners:
    if len(ids) != count:
        raise MufinError(
            f"{path} has {len(ids)} ids, but {vectors} has {count} rows; give the ids of these "
            "vectors, one per row"
        )
    return Owners(ids, Lists(np.arange(count + 1), np.arange(count)))


def _rows(entries: Iterable, path: Path, vectors: Path, count: int) -> Lists:
    """The rows of each entry: a number, -1 or null for none, or a list of numbers."""
    lengths, values = array.array("q"), array.array("q")
    for entry in entries:
        items = entry if isinstance(entry, list) else [entry]
        own = [item for item in items if item is not None and item != -1]
        for item in own:
            if type(item) is not int or not 0 <= item < count:
                raise MufinError(
                    f"{path} names row {shown(item)} of {vectors}, which has {count} rows; give "
                    "the rows of these vectors, from 0"
                )
        lengths.append(len(own))
        values.extend(own)
    return Lists(offsets_of(np.array(lengths, np.int64)), np.array(values, np.int64))


def _of_split(path: Path, count: int, splits: Mapping[str, pa.ChunkedArray]) -> pl.Series:
    """The ids of the rows of a split, by the name of the file, else by its number of rows."""
    name = split_of(path)
    if name not in splits:
        fitting = [name for name, ids in splits.items() if len(ids) == count]
        name = fitting[0] if len(fitting) == 1 else ""
    if not name:
        raise MufinError(
            f"{path} has rows of vectors for {count} products, but not their ids; save it as JSON: "
            "an object of id: row or rows"
        )
    if len(splits[name]) != count:
        raise MufinError(
            f"{path} has {count} entries, but {name} has {len(splits[name])} rows; the files are "
            "from different releases"
        )
    return pl.Series(pl.from_arrow(splits[name]), dtype=pl.String)


# Files of ids: each function returns ids, one per row of the vectors (a Series), or the rows of
# each id (a dict), or the rows of each row of a split (a list).


def _lines(path: Path) -> pl.Series:
    """One id per line; a blank line is a vector without an id."""
    with text_file(path) as file:
        lines = iter(lambda: file.readline(LONGEST_ID + 1), "")
        return _series(line.rstrip("\r\n") for line in _bounded(lines, path))


def _bounded(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_ID:
            raise MufinError(
                f"{path} line {number} has more than {LONGEST_ID} characters; write one id per line"
            )
        yield line


def _series(ids: Iterable[object]) -> pl.Series:
    """The ids as a column, AT_ONCE at a time."""
    ids, parts = iter(ids), [pl.Series([], dtype=pl.String)]
    while some := list(itertools.islice(ids, AT_ONCE)):
        texts = [None if value is None else str(value) for value in some]
        parts.append(pl.Series(texts, dtype=pl.String))
    return pl.concat(parts, rechunk=True)


def _json_entries(path: Path) -> pl.Series | dict | list:
    with text_file(path) as file:
        begin = file.read(2**16).lstrip()[:1]
    if begin == "[":
        return _id_or_rows(list(json_items(path)), path)
    if path.stat().st_size > LARGEST:
        raise MufinError(f"{path} has more than {LARGEST >> 20} MB; give ids as a text file")
    try:
        with text_file(path) as file:
            entries = json.load(file)
    except (ValueError, RecursionError) as error:
        raise MufinError(
            f"{path} is not JSON ({shown(str(error))}); it must be a list of ids, or an object of "
            "id: row or rows"
        ) from None
    if not isinstance(entries, dict):
        raise MufinError(
            f"{path} holds {shown(entries)}; it must be a list of ids, or an object of id: row or "
            "rows"
        )
    return entries


def _id_or_rows(entries: list, path: Path) -> pl.Series | list:
    """A list with lists in it has rows; any other has ids."""
    if any(isinstance(entry, list) for entry in entries):
        return entries
    for entry in entries:
        if not (entry is None or type(entry) is int or isinstance(entry, str)):
            raise MufinError(
                f"{path} has {shown(entry)} among the ids; an id is a text or a whole number"
            )
    return _series(entries)


def _numpy_entries(path: Path) -> pl.Series | list:
    """Ids or rows that NumPy saved."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version[0] > 1:
                read = np.lib.format.read_array_header_2_0
            shape, _, kind = read(file)
            if kind.hasobject:
                return _id_or_rows(pickled_list(file, path), path)
        ids = np.lib.format.open_memmap(path, mode="r")
    except MufinError:
        raise
    except Exception as error:  # NumPy raises a dozen classes for broken headers
        raise MufinError(
            f"{path} cannot be read as an array of NumPy ({shown(str(error))}); save it again"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "iuUS":
        raise MufinError(
            f"{path} is an array {ids.shape} of {ids.dtype}; it must have one id per row of "
            "the vectors"
        )
    return _series(_decoded(ids))


def _decoded(ids: np.ndarray) -> Iterator[object]:
    for start in range(0, len(ids), AT_ONCE):
        for value in ids[start : start + AT_ONCE].tolist():
            yield value.decode("utf-8", "replace") if isinstance(value, bytes) else value
