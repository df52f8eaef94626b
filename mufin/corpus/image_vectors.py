"""Vectors of images that came with the data, in place of the images, as data/raw holds them.

They are rows of `image_vectors-*.npy`, numbered one after another. A product names such a row in
its `images` as `vector#<row>`: this is its key, as others are keys of the image store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mufin.artifacts.arrays import ShardWriter
from mufin.artifacts.contents import check
from mufin.errors import ArtifactError, shown
from mufin.ragged import offsets_of

KEY = "vector#"
NAME = "image_vectors"
CHUNK = 8192  # rows that are in memory at once


def keys_of(rows: Iterable[int]) -> list[str]:
    """The keys of these rows."""
    return [f"{KEY}{row}" for row in rows]


def rows_of(keys: Iterable[str]) -> np.ndarray:
    """(n,) int64: the rows of these keys; raises ArtifactError for another key."""
    try:
        return np.array([int(key.removeprefix(KEY)) for key in keys], np.int64)
    except (ValueError, OverflowError) as error:
        raise ArtifactError(
            f"a product has an image that is no vector ({shown(str(error))}); run `dvc repro`"
        ) from None


def vector_writer(raw: Path) -> ShardWriter:
    """A writer for vectors (n, width) into the folder data/raw."""
    return ShardWriter(raw, NAME)


class StoredVectors:
    """The vectors in data/raw, memory-mapped."""

    def __init__(self, raw: Path):
        paths = sorted(raw.glob(f"{NAME}-*.npy"))
        self.shards = [_mapped(path) for path in paths]
        self.starts = offsets_of([len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        return self.shards[0].shape[1]

    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The vectors of `rows`, which ascend, in that order and CHUNK at a time."""
        if len(rows) and not 0 <= rows[0] <= rows[-1] < len(self):
            raise ArtifactError(
                f"vectors {rows[0]} to {rows[-1]} are requested of {len(self)} in data/raw; the "
                "files are of different runs: run `dvc repro`"
            )
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            ends = np.searchsorted(part, self.starts)
            shards = zip(self.shards, self.starts, ends[:-1], ends[1:])
            yield np.concatenate(
                [shard[part[low:high] - first] for shard, first, low, high in shards]
            )


def _mapped(path: Path) -> np.ndarray:
    check(path, mapped=True)
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({shown(str(error))}); run `dvc repro download`"
        ) from None


def moments(batches: Iterable[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """(width,) mean and standard deviation of the rows of all batches, float64.

    The sums are of differences to the first row, so that a large mean costs no digits.
    """
    count, first = 0, None
    sums = np.zeros((2, width))
    for batch in batches:
        if first is None:
            first = batch[0].astype(np.float64)
        rest = batch.astype(np.float64) - first
        sums += rest.sum(0), (rest**2).sum(0)
        count += len(batch)
    if first is None:
        raise ValueError("no rows")
    mean = sums[0] / count
    return first + mean, np.sqrt(np.maximum(sums[1] / count - mean**2, 0))
