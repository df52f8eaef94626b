"""`data/curated` as arrays: labels (candidate answers) and splits of datapoints (questions)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin.artifacts.contents import checked
from mufin.artifacts.files import write_json
from mufin.artifacts.tables import read_table, write_table
from mufin.errors import ArtifactError
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class Split:
    """The datapoints of one split; the row number is the datapoint id."""

    product: np.ndarray  # (N,) int64, row numbers of products.parquet
    labels: Lists  # the truth, label ids
    excluded: Lists  # the filter pairs, label ids
    # (nnz,) float32 > 0, how strong each pair of `labels` is; None: all alike. Of train alone.
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.product)

    def take(self, index: np.ndarray) -> Split:
        """The datapoints `index`, in that order."""
        weights = self.weights
        if weights is not None:
            weights = weights[self.labels.positions(index)[0]]
        labels, excluded = self.labels.take(index), self.excluded.take(index)
        return Split(self.product[index], labels, excluded, weights)


@dataclass(frozen=True, slots=True)
class Curated:
    """The labels and all splits of `data/curated`."""

    labels: np.ndarray  # (L,) int64, the product of each label
    splits: dict[str, Split]  # train, valid and test

    @property
    def train(self) -> Split:
        return self.splits["train"]


def write_split(split: Split, path: Path) -> None:
    """Publishes a split for `read_split`; its weights, if any, in `<split>_weights.parquet`."""
    columns = {
        "product": split.product.astype(np.int32),
        "labels": split.labels.to_arrow(pa.int32()),
        "excluded": split.excluded.to_arrow(pa.int32()),
    }
    write_table(columns, "split", path)
    if split.weights is not None:
        weights = Lists(split.labels.offsets, split.weights)
        write_table({"weights": weights.to_arrow(pa.float32())}, "weights", _weights_of(path))


def _weights_of(path: Path) -> Path:
    """The file of the weights of a split: `data/curated/train_weights.parquet`."""
    return path.with_name(f"{path.stem}_weights.parquet")


def write_curated(data: Curated, kind: str, products: Path, folder: Path) -> None:
    """Writes `data` into a new `folder` as the stage curate does; `kind` is that of the split.

    The table of products is a link to `products`. There are no unseen labels.
    """
    folder.mkdir()
    (folder / "products.parquet").symlink_to(products)
    for sub, labels in (("", data.labels), ("unseen/", data.labels[:0])):
        write_table({"product": labels.astype(np.int32)}, "labels", folder / f"{sub}labels.parquet")
    for name, split in data.splits.items():
        write_split(split, folder / f"{name}.parquet")
        if name != "train":
            write_split(split, folder / f"unseen/{name}.parquet")
    write_json({"split": kind}, folder / "split.json")


def read_split(path: Path) -> Split:
    """One split, such as `data/curated/train.parquet` or `data/curated/unseen/test.parquet`."""
    table = read_table(path, "split")
    labels, weights = Lists.of_column(table["labels"]), None
    if _weights_of(path).is_file():
        rows = Lists.of_column(read_table(_weights_of(path), "weights")["weights"])
        if not np.array_equal(rows.offsets, labels.offsets):
            raise ArtifactError(
                f"{_weights_of(path)} does not fit {path.name}; delete data/curated and run "
                "`dvc repro`"
            )
        weights = rows.values
    return Split(
        table["product"].to_numpy().astype(np.int64),
        labels,
        Lists.of_column(table["excluded"]),
        weights,
    )


def read_labels(path: Path) -> np.ndarray:
    """(L,) int64: the product of each label."""
    return read_table(path, "labels")["product"].to_numpy().astype(np.int64)


def read_curated(folder: Path) -> Curated:
    """Labels and splits of `data/curated`; raises ArtifactError if it is not as written."""
    checked(folder)
    splits = {name: read_split(folder / f"{name}.parquet") for name in ("train", "valid", "test")}
    return Curated(read_labels(folder / "labels.parquet"), splits)
