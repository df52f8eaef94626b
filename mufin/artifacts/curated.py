"""`data/curated` as arrays: labels (candidate answers) and splits of datapoints (questions)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin.artifacts.contents import checked
from mufin.artifacts.tables import read_table
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class Split:
    """The datapoints of one split; the row number is the datapoint id."""

    product: np.ndarray  # (N,) int64, row numbers of products.parquet
    labels: Lists  # the truth, label ids
    excluded: Lists  # the filter pairs, label ids

    def __len__(self) -> int:
        return len(self.product)

    def take(self, index: np.ndarray) -> Split:
        """The datapoints `index`, in that order."""
        return Split(self.product[index], self.labels.take(index), self.excluded.take(index))


@dataclass(frozen=True, slots=True)
class Curated:
    """The labels and all splits of `data/curated`."""

    labels: np.ndarray  # (L,) int64, the product of each label
    splits: dict[str, Split]  # train, valid and test

    @property
    def train(self) -> Split:
        return self.splits["train"]


def read_split(path: Path) -> Split:
    """One split, such as `data/curated/train.parquet` or `data/curated/unseen/test.parquet`."""
    table = read_table(path, "split")
    return Split(
        table["product"].to_numpy().astype(np.int64),
        Lists.of_column(table["labels"]),
        Lists.of_column(table["excluded"]),
    )


def read_labels(path: Path) -> np.ndarray:
    """(L,) int64: the product of each label."""
    return read_table(path, "labels")["product"].to_numpy().astype(np.int64)


def read_curated(folder: Path) -> Curated:
    """Labels and splits of `data/curated`; raises ArtifactError if it is not as written."""
    checked(folder)
    splits = {name: read_split(folder / f"{name}.parquet") for name in ("train", "valid", "test")}
    return Curated(read_labels(folder / "labels.parquet"), splits)
