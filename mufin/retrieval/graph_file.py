"""The files of hnswlib: their layout, and the check that a file is a whole graph of the given rows.

hnswlib (chroma-hnswlib 0.7.6, `hnswalg.h`: `saveIndex`, `loadIndex`) trusts what it reads: sizes go
to `malloc`, and links are followed as addresses. So a file that is not its own can crash a search.
The layout, in little-endian words of four bytes:

| part | words |
|---|---|
| head | 24, see `HEAD` |
| per row | number of links with the mark of a removed row, 2 m places, vector, id (2 words) |
| norms | 1 per row, used for cosine similarity only |
| per row | bytes of its lists, then for each upper layer: number of links, m places |
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mufin.errors import ArtifactError
from mufin.retrieval.exact import LabelRows

HEAD = np.dtype(
    [
        ("level0", "<u8"),  # where the links begin in the bytes of a row: 0
        ("capacity", "<u8"),  # rows that there is room for
        ("rows", "<u8"),
        ("row_bytes", "<u8"),
        ("id_at", "<u8"),  # where the id begins in the bytes of a row
        ("vector_at", "<u8"),
        ("top", "<i4"),  # the highest layer; -1 without rows
        ("entry", "<u4"),  # the row, of that layer, at which a search begins
        ("upper_links", "<u8"),  # places for links per row in a layer above the lowest
        ("links", "<u8"),  # the same in the lowest layer
        ("m", "<u8"),
        ("mult", "<f8"),  # 1 / log(m), for drawing the layers of a new row
        ("ef_construction", "<u8"),
    ]
)
NAMES = HEAD.names or ()
MOST_LINKS = 2**16 - 1  # their number is stored in 16 bits
BLOCK = 2**22  # words looked at together, 16 MB
CLOSE = 1e-4  # normalised rows differ in the last bits from machine to machine
NO_ENTRY = 2**32 - 1


class _Fault(Exception):
    """What is wrong with a file, in a few words."""


def check_graph(path: Path, source: LabelRows) -> None:
    """Raises ArtifactError if the file is not a whole graph of the rows of `source`.

    After it hnswlib reads the file and searches it without leaving its memory: all sizes agree with
    each other and with that of the file, links lead to rows that exist in the layer of the link,
    and the vectors are those of `source`. Rows marked as removed have no label in `source`.
    """
    try:
        _check(path, source)
    except (_Fault, OSError) as fault:
        raise ArtifactError(
            f"{path} is broken or not the graph of this index ({fault}); run `dvc repro index` "
            "again"
        ) from None


def size_by_head(path: Path) -> int:
    """The bytes that a graph file must have by its own numbers; more than it has if it was cut."""
    with open(path, "rb") as file:
        start = file.read(HEAD.itemsize)
        if len(start) < HEAD.itemsize:
            return HEAD.itemsize
        head = np.frombuffer(start, HEAD)[0]
        rows = int(head["rows"])
        position = file.seek(HEAD.itemsize + rows * (int(head["row_bytes"]) + 4))
        for _ in range(rows):
            length = int.from_bytes(file.read(4), "little")
            position += 4 + length
            if length:
                file.seek(position)
    return position


def clear_norms(path: Path) -> None:
    """Overwrites the norms with zeros.

    Only the cosine similarity uses them. For others hnswlib leaves them undefined, so the same rows
    would give other bytes in each run.
    """
    with open(path, "r+b") as file:
        head = np.frombuffer(file.read(HEAD.itemsize), HEAD)[0]
        rows = int(head["rows"])
        file.seek(HEAD.itemsize + rows * int(head["row_bytes"]))
        for start in range(0, rows, 2**20):
            file.write(bytes(4 * min(2**20, rows - start)))


def _check(path: Path, source: LabelRows) -> None:
    size = path.stat().st_size
    _require(size >= HEAD.itemsize and size % 4 == 0, f"it has {size} bytes")
    with open(path, "rb") as file:
        head = dict(zip(NAMES, np.fromfile(file, HEAD, 1)[0].item()))
        _check_head(head, *source.rows.shape)
        count, width = head["rows"], head["row_bytes"] // 4
        _require(HEAD.itemsize + 4 * count * (width + 2) <= size, f"it has {size} bytes")
        _check_rows(file, head, source)
        file.seek(4 * count, os.SEEK_CUR)  # norms
        words = np.fromfile(file, "<u4")
    starts, levels = _upper_lists(words, count, head["m"])
    if count:
        _require(head["entry"] < count and 0 <= head["top"] == levels.max(), "top")
        _require(levels[head["entry"]] == head["top"], "entry")
    else:
        _require((head["top"], head["entry"]) == (-1, NO_ENTRY), "entry of no rows")
    _check_upper_links(words, starts, levels, head["m"])


def _require(ok: bool, said: str) -> None:
    if not ok:
        raise _Fault(said)


def _check_head(head: dict, count: int, dim: int) -> None:
    m = head["m"]
    _require(2 <= m <= MOST_LINKS // 2, f"m is {m}")
    expected = {
        "level0": 0,
        "rows": count,
        "upper_links": m,
        "links": 2 * m,
        "vector_at": 4 + 8 * m,
        "id_at": 4 + 8 * m + 4 * dim,
        "row_bytes": 4 + 8 * m + 4 * dim + 8,
    }
    for name, value in expected.items():
        _require(head[name] == value, f"{name} is {head[name]}, not {value}")
    _require(count <= head["capacity"] <= max(count, 1), f"capacity is {head['capacity']}")
    _require(head["ef_construction"] >= m, f"ef_construction is {head['ef_construction']}")
    _require(math.isclose(head["mult"], 1 / math.log(m)), f"mult is {head['mult']}")


def _check_rows(file: BinaryIO, head: dict, source: LabelRows) -> None:
    """Links, ids and vectors of the lowest layer, which `file` is at.

    It reads block by block: pages of a mapped file would count as memory of the process.
    """
    count, places, width = head["rows"], head["links"], head["row_bytes"] // 4
    seen = np.zeros(count, bool)
    for part in _blocks(count, width):
        here = min(part.stop, count) - part.start
        block = np.fromfile(file, "<u4", here * width)
        _require(len(block) == here * width, "it ends in a row")
        block = block.reshape(here, width)
        number, flags = block[:, 0] & MOST_LINKS, block[:, 0] >> 16
        _require(bool((flags <= 1).all()), "marks of rows")
        _check_links(number, block[:, 1 : 1 + places], count)
        _require(bool((block[:, -1] == 0).all() and (block[:, -2] < count).all()), "ids of rows")
        ids = block[:, -2].astype(np.int64)
        seen[ids] = True
        vectors = block[:, 1 + places : -2].view("<f4")
        _require(_close(vectors, source.rows[ids]), "its vectors are others")
        _require(bool((source.label[ids[flags == 1]] < 0).all()), "a row in use is removed")
    _require(bool(seen.all()), "two rows of one id")


def _close(vectors: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether all differ by at most `CLOSE` (1 + |wanted|); false for NaN."""
    if np.array_equal(vectors, wanted):  # where the machine that built the graph reads it
        return True
    return bool((np.abs(vectors - wanted) <= CLOSE * (1 + np.abs(wanted))).all())


def _check_links(number: np.ndarray, links: np.ndarray, count: int) -> None:
    """The `number` (n,) of links in the places `links` (n, places), all below `count`."""
    places = links.shape[1]
    _require(bool((number <= places).all()), "numbers of links")
    used = np.arange(places) < number[:, None]
    _require(bool((~used | (links < count)).all()), "links to no row")


def _upper_lists(words: np.ndarray, count: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the lists of each row begin in `words`, and its highest layer, both (count,) int64.

    Most rows are in the lowest layer alone: a zero. So the loop goes from one word that is not zero
    to the next that is not in the lists of a row. Raises _Fault if the lists do not end with
    `words`.
    """
    starts, levels = np.zeros(count, np.int64), np.zeros(count, np.int64)
    filled = np.flatnonzero(words)
    places, bytes_there = filled.tolist(), words[filled].tolist()  # a loop over numpy is slow
    found: list[tuple[int, int, int]] = []  # row, start, level
    row = at = place = 0  # `at` is the place of the word with the bytes of the lists of `row`
    while row < count:
        place = bisect_left(places, at, place)
        following = places[place] if place < len(places) else len(words)
        row, at = min(row + following - at, count), min(following, at + count - row)
        if row == count:
            break
        _require(at < len(words), "lists of too few rows")
        level, rest = divmod(bytes_there[place], 4 * (m + 1))
        _require(rest == 0, "lengths of lists")
        found.append((row, at + 1, level))
        row, at = row + 1, at + 1 + level * (m + 1)
    _require(at == len(words), "bytes of lists")
    if found:
        rows, firsts, heights = np.array(found).T
        starts[rows], levels[rows] = firsts, heights
    return starts, levels


def _check_upper_links(words: np.ndarray, starts: np.ndarray, levels: np.ndarray, m: int) -> None:
    """A link in a layer leads to a row of that layer or a higher one."""
    row = np.repeat(np.arange(len(levels)), levels)  # of each list
    layer = np.arange(len(row)) - np.repeat(np.cumsum(levels) - levels, levels)  # 0 for layer 1
    for part in _blocks(len(row), m + 1):
        first = starts[row[part]] + layer[part] * (m + 1)
        lists = words[first[:, None] + np.arange(m + 1)]
        number, links = lists[:, 0], lists[:, 1:]
        _check_links(number, links, len(levels))
        used = np.arange(m) < number[:, None]
        reached = levels[np.where(used, links, 0)] > layer[part, None]
        _require(bool((~used | reached).all()), "links to rows of lower layers")


def _blocks(count: int, width: int) -> list[slice]:
    """Slices of `count` rows that have `width` words each."""
    step = max(1, BLOCK // width)
    return [slice(start, start + step) for start in range(0, count, step)]
