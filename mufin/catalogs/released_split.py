"""The label lists and the filter pairs of a released split, read in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mufin.catalogs.text_files import latin1_lines_of
from mufin.errors import MufinError, shown
from mufin.ragged import Lists, offsets_of

LONGEST_TOKEN = 32  # characters of `label:value`
CHUNK = 100_000  # lines or pairs at once: as Python objects they are 30 times as large as numbers


def sparse(path: Path, rows: int, columns: int) -> Lists:
    """(rows,) lists of the label ids of each datapoint, from trn_X_Y.txt or tst_X_Y.txt.

    A row may be empty; the values after the colons are not used. Raises MufinError if the file does
    not have `rows` datapoints and `columns` labels.
    """
    if not path.is_file():
        raise MufinError(
            f"{path} is missing; a released split needs trn_X_Y.txt and tst_X_Y.txt: fetch it"
        )
    lines = latin1_lines_of(path, LONGEST_TOKEN * (columns + 1))
    header = next(lines, (1, ""))[1].split()
    if header[:2] != [str(rows), str(columns)]:
        raise MufinError(
            f"{path} line 1 says {' '.join(header)[:100]}, but the title files have {rows} "
            f"rows and {columns} labels; the files are from different releases: "
            "fetch them again"
        )
    found = label_lists(_tokens(path, lines), path, columns)
    if len(found) != rows:
        raise MufinError(
            f"{path} has {len(found)} rows, but its header says {rows}; it is cut off: fetch it "
            "again"
        )
    return found


def _tokens(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[int]]]:
    for number, line in lines:
        try:
            yield number, [int(token.partition(":")[0]) for token in line.split()]
        except ValueError:
            raise MufinError(
                f"{path} line {number} is not a list of label:value; fetch the file again"
            ) from None


def label_lists(rows: Iterable[tuple[int, list[int]]], path: Path, columns: int) -> Lists:
    """The lists of (line number, label ids); raises MufinError for an id that is no label."""
    lengths, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    rows = iter(rows)
    while some := list(itertools.islice(rows, CHUNK)):
        for number, row in some:
            if row and not 0 <= min(row) <= max(row) < columns:
                wrong = max(row) if max(row) >= columns else min(row)
                raise MufinError(
                    f"{path} line {number} names label {shown(wrong)}, but there are only "
                    f"{columns} labels; fetch the file again"
                )
        lengths.append(np.fromiter((len(row) for _, row in some), np.int64, len(some)))
        flat = itertools.chain.from_iterable(row for _, row in some)
        values.append(np.fromiter(flat, np.int32, int(lengths[-1].sum())))
    return Lists(offsets_of(np.concatenate(lengths)), np.concatenate(values))


def pairs(path: Path, rows: int, columns: int) -> Lists:
    """(rows,) lists of the label ids of the filter pairs; all empty without the file."""
    if not path.exists():
        return Lists(np.zeros(rows + 1, np.int64), np.zeros(0, np.int32))
    lines = (line for _, line in latin1_lines_of(path, 2**10))
    parts = [np.zeros((0, 2), np.int64)]
    try:
        while some := list(itertools.islice(lines, CHUNK)):
            parts.append(np.array("".join(some).split(), np.int64).reshape(-1, 2))
    except (ValueError, OverflowError):
        raise MufinError(
            f"{path} is not one `datapoint label` pair per line; fetch the file again"
        ) from None
    found = np.concatenate(parts)
    if len(found) and (
        found.min() < 0 or found[:, 0].max() >= rows or found[:, 1].max() >= columns
    ):
        raise MufinError(
            f"{path} names a datapoint or label that is not in the split; "
            "the files are from different releases: fetch them again"
        )
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    return Lists.of_pairs(found[:, 0], found[:, 1].astype(np.int32), rows)
