"""Products without a text whose pictures cannot be decoded: nothing of them could be learnt.

Found before the split, so that no datapoint and no label is without a descriptor (MUFIN Sec. 3,
Notation: a product is a bag of descriptors).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from mufin.artifacts.tables import temporary_batches
from mufin.corpus.clean_rows import CleanRows
from mufin.corpus.decoding import decoded
from mufin.corpus.outcomes import Outcomes
from mufin.errors import shown

SIDE = 32  # pixels; what they show does not matter here
LOST = "rows without a title whose pictures cannot be decoded"


def without_undecodable(
    source: CleanRows, store: Path, workers: int
) -> tuple[CleanRows, dict[str, str]]:
    """The rows, those whose only descriptors are pictures that cannot be decoded without these.

    `store` is the image store. Also returns an example for the count in `dropped`, if there is one.
    Decodes one picture of each row without a text, and others where the first ones fail.
    """
    lost = _undecodable(source, store, workers)
    if not len(lost):
        return source, {}
    images = source.images.copy()
    images[lost] = 0
    uids = _values(source.path, lost[:1], "uid", None)
    found = replace(source, images=images, dropped=source.dropped | {LOST: len(lost)})
    return found, {LOST: shown(str(uids[0]))}


def _undecodable(source: CleanRows, store: Path, workers: int) -> np.ndarray:
    """(m,) int64 ascending: rows of products with pictures alone, none of which can be decoded."""
    images = source.images[: source.products]
    left, place = np.flatnonzero(~source.described()[: source.products] & (images > 0)), 0
    while len(rows := left[images[left] > place]):
        keys = _values(source.path, rows, "images", place)
        with closing(decoded(store, np.unique(keys), SIDE, workers, Outcomes())) as pictures:
            good = np.array([key for key, _ in pictures], dtype=keys.dtype)
        left = np.setdiff1d(left, rows[np.isin(keys, good)])
        place += 1
    return left


def _values(path: Path, rows: np.ndarray, column: str, place: int | None) -> np.ndarray:
    """(len(rows),) str: the column of these ascending rows, or what is at `place` of its lists."""
    parts, start = [np.zeros(0, "U1")], 0
    for batch in temporary_batches(path, "products", [column]):
        first, last = np.searchsorted(rows, (start, start + len(batch)))
        some = batch[column].take(rows[first:last] - start).to_pylist()
        parts.append(np.array(some if place is None else [of[place] for of in some], dtype=str))
        start += len(batch)
    return np.concatenate(parts)
