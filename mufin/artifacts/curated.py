"""`data/curated` as arrays: labels and splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin.artifacts.tables import read_table
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class Split:
    """Datapoints of one split: the row is the datapoint id."""

    product: np.ndarray  # (N,) int64, rows of products
    labels: Lists  # the truth, label ids
    excluded: Lists  # the filter pairs, label ids

    def __len__(self) -> int:
        return len(self.product)

    def take(self, index: np.ndarray) -> Split:
        """The datapoints `index`, in that order."""
        return Split(self.product[index], self.labels.take(index), self.excluded.take(index))


@dataclass(frozen=True, slots=True)
class Curated:
    """`data/curated`: labels and splits."""

    labels: np.ndarray  # (L,) int64, product of each label
    splits: dict[str, Split]

    @property
    def train(self) -> Split:
        return self.splits["train"]


def read_split(path: Path) -> Split:
    """`data/curated/{train,valid,test}.parquet` (or the unseen ones)."""
    t = read_table(path, "split")
    return Split(
        t["product"].to_numpy().astype(np.int64),
        Lists.of_column(t["labels"]),
        Lists.of_column(t["excluded"]),
    )


def read_labels(path: Path) -> np.ndarray:
    """(L,) int64: the product of each label."""
    return read_table(path, "labels")["product"].to_numpy().astype(np.int64)


def read_curated(folder: Path) -> Curated:
    return Curated(
        read_labels(folder / "labels.parquet"),
        {name: read_split(folder / f"{name}.parquet") for name in ("train", "valid", "test")},
    )
