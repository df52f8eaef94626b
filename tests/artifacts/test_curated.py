"""The curated labels and splits as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from mufin.artifacts.curated import (
    Split,
    read_curated,
    read_labels,
    read_split,
    write_split,
)
from mufin.artifacts.tables import write_table
from mufin.errors import ArtifactError
from mufin.ragged import Lists
from tests.support.artifacts import sealed

SPLIT = {"product": [4, 2], "labels": [[1, 0], []], "excluded": [[], [3]]}


def test_splits_and_labels_come_back_as_arrays(tmp_path):
    write_table(SPLIT, "split", tmp_path / "s.parquet")
    split = read_split(sealed(tmp_path) / "s.parquet")
    assert len(split) == 2 and split.product.dtype == np.int64 and split.product.tolist() == [4, 2]
    assert [split.labels[i].tolist() for i in range(2)] == [[1, 0], []]
    assert [split.excluded[i].tolist() for i in range(2)] == [[], [3]]
    write_table({"product": np.array([7, 5])}, "labels", tmp_path / "l.parquet")
    assert read_labels(sealed(tmp_path) / "l.parquet").tolist() == [7, 5]


def test_an_empty_split_comes_back_empty(tmp_path):
    nothing = {"product": np.zeros(0, int), "labels": [], "excluded": []}
    write_table(nothing, "split", tmp_path / "s.parquet")
    split = read_split(sealed(tmp_path) / "s.parquet")
    assert len(split) == len(split.labels) == len(split.excluded) == 0


def test_taken_datapoints_keep_their_labels_and_filter_pairs(tmp_path):
    write_table(SPLIT, "split", tmp_path / "s.parquet")
    taken = read_split(sealed(tmp_path) / "s.parquet").take(np.array([1, 0, 1]))
    assert taken.product.tolist() == [2, 4, 2]
    assert [taken.labels[i].tolist() for i in range(3)] == [[], [1, 0], []]
    assert [taken.excluded[i].tolist() for i in range(3)] == [[3], [], [3]]


def test_the_curated_folder_is_read_whole_or_named(tmp_path):
    write_table({"product": np.array([7, 5, 1, 0])}, "labels", tmp_path / "labels.parquet")
    for number, name in enumerate(("train", "valid", "test")):
        columns = SPLIT | {"product": [number, 9]}
        write_table(columns, "split", tmp_path / f"{name}.parquet")
    data = read_curated(sealed(tmp_path))
    assert data.labels.tolist() == [7, 5, 1, 0] and list(data.splits) == ["train", "valid", "test"]
    assert [split.product[0] for split in data.splits.values()] == [0, 1, 2]
    assert data.train is data.splits["train"]
    (tmp_path / "valid.parquet").unlink()
    with pytest.raises(ArtifactError, match="valid.parquet is missing; `dvc checkout"):
        read_curated(tmp_path)


def test_weights_come_back_with_their_pairs(tmp_path):
    lists = Lists.of_rows([[1, 0], [], [3]])
    weights = np.float32([0.5, 1, 2])
    write_split(Split(np.arange(3), lists, lists, weights), tmp_path / "s.parquet")
    write_split(Split(np.arange(3), lists, lists), tmp_path / "t.parquet")
    sealed(tmp_path)
    assert read_split(tmp_path / "t.parquet").weights is None
    split = read_split(tmp_path / "s.parquet")
    assert split.weights.tolist() == [0.5, 1, 2] and split.weights.dtype == np.float32
    assert split.take(np.array([2, 0])).weights.tolist() == [2, 0.5, 1]


def test_weights_of_another_split_are_refused(tmp_path):
    lists = Lists.of_rows([[1, 0], [], [3]])
    write_split(Split(np.arange(3), lists, lists, np.float32([1, 2, 3])), tmp_path / "s.parquet")
    write_table({"weights": [[1.0], [1.0], [2.0]]}, "weights", tmp_path / "s_weights.parquet")
    with pytest.raises(ArtifactError, match="s_weights.parquet does not fit s.parquet"):
        read_split(sealed(tmp_path) / "s.parquet")
