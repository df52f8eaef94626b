"""Vectors of images in files of others: arrays that NumPy saved, given to products by their ids."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from mufin.artifacts.tables import write_table
from mufin.catalogs.locations import looked_for
from mufin.catalogs.notes import Notes
from mufin.catalogs.product import Product
from mufin.catalogs.vector_owners import Owners, owners_of, split_of
from mufin.corpus.image_vectors import CHUNK, KEY, vector_writer
from mufin.corpus.lookup import Lookup, hashes
from mufin.errors import MufinError, shown
from mufin.progress import progress
from mufin.ragged import Lists, offsets_of

SETTING = "download.image_vectors"
REASON = "numbers that are not finite"


@dataclass(slots=True)
class GivenVectors:
    """The vectors of all files, their rows numbered one after another, and their products."""

    arrays: list[np.ndarray]  # memory-mapped, (n, width) each
    ids: pl.Series  # (k,) String, distinct
    rows: Lists  # (k,) the rows of each id, in order
    lookup: Lookup  # of the ids
    seen: np.ndarray = field(init=False)  # (k,) bool, ids that are those of a product
    used: np.ndarray = field(init=False)  # (n,) bool, rows that are those of a product

    def __post_init__(self) -> None:
        self.seen = np.zeros(len(self.ids), bool)
        self.used = np.zeros(sum(map(len, self.arrays)), bool)

    @property
    def width(self) -> int:
        return self.arrays[0].shape[1]

    def put_in(self, products: Iterable[Product], most: int, notes: Notes) -> Iterator[Product]:
        """The products with references of their first `most` vectors in place of images.

        Notes ids that are no product and products without a vector. Raises MufinError if no product
        has one.
        """
        products, last = iter(products), ""
        while some := list(itertools.islice(products, 10_000)):
            for product, rows in zip(some, self._rows_of([p.uid for p in some])):
                first = list(dict.fromkeys(rows.tolist()))[:most]
                product.images = [f"{KEY}{row}" for row in first]
                self.used[first] = True
                if not len(rows):
                    notes.add("products without an image vector", product.uid)
                yield product
            last = some[-1].uid
        unseen = np.flatnonzero(~self.seen)
        if len(unseen):
            notes.add(
                "ids of image vectors that are no product", self.ids[int(unseen[0])], len(unseen)
            )
        if last and not self.seen.any():
            raise MufinError(
                f"no id in {SETTING}.ids is that of a product: they are such as "
                f"{shown(self.ids[0])}, those of products such as {shown(last)}"
            )

    def _rows_of(self, uids: list[str]) -> list[np.ndarray]:
        """The rows of each of these products."""
        numbers = self._find(uids)
        out = [self.rows[number] if number >= 0 else self.rows.values[:0] for number in numbers]
        for at, uid in enumerate(uids):
            if numbers[at] < 0 and "," in uid:  # a row of a released set can have several UIDs
                parts = self._find([part.strip() for part in uid.split(",")])
                out[at] = np.concatenate([out[at], *(self.rows[n] for n in parts if n >= 0)])
        return out

    def _find(self, uids: list[str]) -> np.ndarray:
        """(n,) int64: the number of each id, -1 where there is none; those found are seen."""
        numbers = self.lookup.find(hashes(pl.Series(uids, dtype=pl.String)))
        self.seen[numbers[numbers >= 0]] = True
        return numbers

    def store(self, folder: Path, notes: Notes) -> dict:
        """Writes the vectors that products have, and the image log of them, to `folder`; counts.

        A vector with a number that is not finite is not written; its reason is in the log.
        """
        rows, writer = np.flatnonzero(self.used), vector_writer(folder)
        good = np.ones(len(rows), bool)
        for start in progress(range(0, len(rows), CHUNK), "image vectors", f"batches of {CHUNK}"):
            part = rows[start : start + CHUNK]
            values = self._taken(part)
            good[start : start + len(part)] = finite = np.isfinite(values).all(1)
            empty = part[~values.any(1)]
            if len(empty):
                notes.add("image vectors of zeros alone", f"row {empty[0]}", len(empty))
            writer.add(values[finite])
        writer.close()
        _write_log(rows, good, folder / "image_log.parquet")
        bad = rows[~good]
        return {
            "pictures": len(rows) - len(bad),
            "references": len(rows),
            "failed": {REASON: len(bad)} if len(bad) else {},
            "failed_examples": {REASON: f"row {bad[0]}"} if len(bad) else {},
        }

    def _taken(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of `rows`, which ascend; float16 if all arrays are, else float32."""
        half = all(array.dtype.itemsize == 2 for array in self.arrays)
        starts = offsets_of([len(array) for array in self.arrays])
        ends = np.searchsorted(rows, starts)
        parts = [
            array[rows[low:high] - first]
            for array, first, low, high in zip(self.arrays, starts, ends[:-1], ends[1:])
        ]
        with np.errstate(over="ignore"):  # too large for float32: infinite, and then left out
            return np.concatenate(parts).astype(np.float16 if half else np.float32, copy=False)


def _write_log(rows: np.ndarray, good: np.ndarray, path: Path) -> None:
    """The image log of vectors: their row in the files, that in data/raw, or why they have none."""
    table = pl.DataFrame({"row": rows, "stored": np.cumsum(good) - 1, "good": good}).select(
        url=pl.format(KEY + "{}", "row"),
        key=pl.when("good").then(pl.format(KEY + "{}", "stored")).otherwise(pl.lit("")),
        reason=pl.when("good").then(pl.lit("")).otherwise(pl.lit(REASON)),
    )
    columns = {name: table[name].to_arrow().cast(pa.string()) for name in table.columns}
    write_table(columns, "image_log", path)


# Reading


def given_vectors(
    location: str, ids: str, splits: Mapping[str, pa.ChunkedArray], notes: Notes
) -> GivenVectors:
    """The vectors of `location` with the products that `ids` names, both files or globs.

    `splits` has the ids of the rows of train, test and label, where the data has a split. Several
    files belong together by the split in their names, else in the order of their names. Raises
    MufinError for files that are missing, broken or do not fit together.
    """
    vectors, names = _files(location, "location"), _files(ids, "ids")
    if len(vectors) != len(names):
        raise MufinError(
            f"{SETTING}.location names {len(vectors)} files and {SETTING}.ids {len(names)}; each "
            "file of vectors needs a file of ids"
        )
    arrays: list[np.ndarray] = []
    found: list[Owners] = []
    start = 0  # of the rows of the next file
    for path, name in _pairs(vectors, names):
        array = _array(path)
        if arrays and array.shape[1] != arrays[0].shape[1]:
            raise MufinError(
                f"{path} has vectors of {array.shape[1]} numbers, the file before it of "
                f"{arrays[0].shape[1]}; give files of one encoder"
            )
        owners = owners_of(name, path, len(array), splits)
        moved = Lists(owners.rows.offsets, owners.rows.values + start)
        found.append(replace(owners, rows=moved))
        arrays.append(array)
        start += len(array)
    return _joined(arrays, found, _by_split(vectors), notes)


def _joined(
    arrays: list[np.ndarray], found: list[Owners], by_split: bool, notes: Notes
) -> GivenVectors:
    """One list of rows per id, in the order of the files.

    Of files `by_split`, the first that has vectors of a product counts: train, test and label have
    the same images of one product.
    """
    ids = pl.concat([owners.ids for owners in found]).str.strip_chars()
    counts = np.concatenate([owners.rows.lengths() for owners in found])
    values = np.concatenate([owners.rows.values for owners in found])
    file = np.repeat(np.arange(len(found)), [len(owners.ids) for owners in found])
    nameless = (ids.is_null() | (ids == "")).to_numpy()
    if lost := int(counts[nameless].sum()):
        notes.add("image vectors without an id", count=lost)
    lookup = Lookup(hashes(ids.fill_null("")))
    entry = np.repeat(np.arange(len(ids)), counts)  # of each value
    group, keep = lookup.group[entry], ~nameless[entry]
    if by_split:
        first = np.full(len(lookup), len(found))
        np.minimum.at(first, group, file[entry])
        keep &= file[entry] == first[group]
    group, values = group[keep], values[keep]
    order = np.argsort(group, kind="stable")
    rows = Lists.of_pairs(group[order], values[order], len(lookup))
    distinct = ids.gather(np.unique(lookup.group, return_index=True)[1])
    return GivenVectors(arrays, distinct, rows, lookup)


def _files(text: str, which: str) -> list[Path]:
    """The files of a path or a glob, sorted; raises MufinError if there are none."""
    hint = ""
    try:
        path = Path(text).expanduser()
        hint = looked_for(path)
        files = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(str(path)))]
        files = [path for path in files if path.is_file()]
    except (OSError, RuntimeError, ValueError):
        files = []
    if not files:
        raise MufinError(
            f"{SETTING}.{which} is {shown(text)}, which is no file; give the path of a file, or a "
            f"glob of several{hint}"
        )
    return files


def _pairs(vectors: list[Path], names: list[Path]) -> list[tuple[Path, Path]]:
    if not (_by_split(vectors) and _by_split(names)):
        return list(zip(vectors, names))
    arrays, ids = ({split_of(path): path for path in files} for files in (vectors, names))
    if arrays.keys() != ids.keys():
        return list(zip(vectors, names))
    return [(arrays[name], ids[name]) for name in ("train", "test", "label") if name in arrays]


def _by_split(files: list[Path]) -> bool:
    """Whether the names of the files begin with different splits."""
    splits = {split_of(path) for path in files}
    return "" not in splits and len(splits) == len(files)


def _array(path: Path) -> np.ndarray:
    """The vectors of a file, memory-mapped."""
    try:
        with np.errstate(over="ignore"):  # a hostile shape, which is then refused
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises a dozen classes for broken headers
        raise MufinError(
            f"{path} cannot be read as an array of NumPy ({shown(str(error))}); save it with "
            "numpy.save as an array (n, width) of float16 or float32"
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1] or not len(array):
        raise MufinError(
            f"{path} is an array {array.shape} of {array.dtype}; it must be (n, width) of float16 "
            "or float32"
        )
    return array
