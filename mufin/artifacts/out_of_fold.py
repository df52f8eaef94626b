"""`data/folds`: scores of train datapoints by networks that have not seen them.

docs/architecture.md, Artifacts, lists the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin.artifacts.contents import checked
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import read_table, write_table
from mufin.errors import ArtifactError
from mufin.ragged import Lists

SCORES = ("classifier", "similarity", "ridge", "votes")


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """The left-out datapoints of one fold, with candidate labels and what a mix combines.

    Label ids are those of `data/curated`, not of the fold.
    """

    datapoints: np.ndarray  # (n,) int64, rows of data/curated/train.parquet
    candidates: Lists  # label ids, distinct per row
    scores: dict[str, np.ndarray]  # (nnz,) float32 each: those of SCORES that there are
    truth: Lists  # true labels that are labels of the fold
    excluded: Lists  # filter pairs
    counts: np.ndarray  # (L,) int64, train datapoints of each label in the fold

    def __len__(self) -> int:
        return len(self.datapoints)


def write_out_of_fold(
    folds: list[OutOfFold], folder: Path, made_from: Mapping[str, str] | None = None
) -> None:
    """Publishes `scores.parquet` and `counts.parquet`; no folds give empty tables."""
    with publish(folder, made_from) as scratch:
        scratch.mkdir()
        write_table(_joined(folds), "out_of_fold", scratch / "scores.parquet")
        counts = Lists.of_rows([fold.counts for fold in folds])
        write_table(
            {"counts": counts.to_arrow(pa.int32())}, "fold_counts", scratch / "counts.parquet"
        )


def read_out_of_fold(folder: Path) -> list[OutOfFold]:
    """The folds that `write_out_of_fold` wrote; raises ArtifactError if they are not as written."""
    checked(folder)
    table = read_table(folder / "scores.parquet", "out_of_fold")
    counts = Lists.of_column(read_table(folder / "counts.parquet", "fold_counts")["counts"])
    number = table["fold"].to_numpy()
    if len(number) and number.max() >= len(counts):
        raise ArtifactError(
            f"{folder / 'counts.parquet'} does not fit scores.parquet; run `dvc repro folds`"
        )
    return [
        _fold(table.filter(pa.array(number == fold)), counts[fold].astype(np.int64))
        for fold in range(len(counts))
    ]


def _joined(folds: list[OutOfFold]) -> dict:
    """The columns of all folds, one below the other."""
    columns: dict[str, list] = {
        name: [] for name in ("fold", "datapoint", "labels", "truth", "excluded")
    }
    columns |= {name: [] for name in SCORES}
    for number, fold in enumerate(folds):
        columns["fold"].append(pa.array(np.full(len(fold), number), pa.int32()))
        columns["datapoint"].append(pa.array(fold.datapoints, pa.int32()))
        for name, lists in (
            ("labels", fold.candidates),
            ("truth", fold.truth),
            ("excluded", fold.excluded),
        ):
            columns[name].append(lists.to_arrow(pa.int32()))
        nothing = Lists(np.zeros(len(fold) + 1, np.int64), np.zeros(0, np.float32))
        for name in SCORES:
            there = name in fold.scores
            lists = Lists(fold.candidates.offsets, fold.scores[name]) if there else nothing
            columns[name].append(lists.to_arrow(pa.float32()))
    return {name: pa.chunked_array(parts) if parts else [] for name, parts in columns.items()}


def _fold(rows: pa.Table, counts: np.ndarray) -> OutOfFold:
    lists = {name: Lists.of_column(rows[name]) for name in ("labels", "truth", "excluded", *SCORES)}
    size = len(lists["labels"].values)
    return OutOfFold(
        rows["datapoint"].to_numpy().astype(np.int64),
        lists["labels"],
        {name: lists[name].values for name in SCORES if len(lists[name].values) == size},
        lists["truth"],
        lists["excluded"],
        counts,
    )
