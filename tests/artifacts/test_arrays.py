"""Arrays written in bounded memory equal those that numpy writes at once."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts import arrays
from mufin.artifacts.arrays import RowFile, ShardWriter

BATCHES = st.lists(st.integers(1, 7), min_size=1, max_size=9)
SHAPES = st.sampled_from([(), (3,), (2, 4)])
DTYPES = st.sampled_from([np.uint8, np.float16, np.float32, np.int64])


@settings(max_examples=60, deadline=None)
@given(BATCHES, SHAPES, DTYPES, st.integers(100, 2000))
def test_every_shard_has_the_bytes_of_numpys_save(tmp_path_factory, batches, shape, dtype, limit):
    folder = tmp_path_factory.mktemp("shards")
    rows = np.random.default_rng(0).integers(0, 99, (sum(batches), *shape)).astype(dtype)
    writer = ShardWriter(folder, "rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "SHARD_BYTES", limit)
        for batch in np.split(rows, np.cumsum(batches)[:-1]):
            writer.add(batch)
        names = writer.close()
    assert sorted(p.name for p in folder.iterdir()) == names
    assert names == [f"rows-{number:05d}.npy" for number in range(len(names))]
    shards = [np.load(folder / name) for name in names]
    assert np.array_equal(np.concatenate(shards), rows)
    for name, shard in zip(names, shards):
        np.save(folder / "whole.npy", shard)
        assert (folder / name).read_bytes() == (folder / "whole.npy").read_bytes()
        largest = max(batches) * rows[:1].nbytes + 128  # a batch larger than a shard has its own
        assert (folder / name).stat().st_size <= max(limit, largest)


def test_a_shard_is_full_before_the_next_one_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(
        arrays, "SHARD_BYTES", 128 + 40
    )  # numpy's header and ten rows of four bytes
    writer = ShardWriter(tmp_path, "rows")
    for start in range(0, 24, 2):
        writer.add(np.arange(start, start + 2, dtype=np.int32))
    assert [len(np.load(tmp_path / name)) for name in writer.close()] == [10, 10, 4]


def test_the_header_is_rewritten_in_place_with_the_rows(tmp_path):
    writer = ShardWriter(tmp_path, "rows")
    for start in range(0, 1000, 8):
        writer.add(np.full((8, 2), start, np.float32))
    writer.file.flush()
    open_shard = (tmp_path / "rows-00000.npy").read_bytes()
    assert len(np.load(tmp_path / "rows-00000.npy")) == 0  # rows are counted at the end
    writer.close()
    closed = (tmp_path / "rows-00000.npy").read_bytes()
    assert len(open_shard) == len(closed) == 128 + 1000 * 8
    assert open_shard[128:] == closed[128:] and len(np.load(tmp_path / "rows-00000.npy")) == 1000


def test_transposed_rows_are_written_in_order(tmp_path):
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    writer = ShardWriter(tmp_path, "rows")
    writer.add(rows.T[::2])
    assert np.array_equal(np.load(tmp_path / writer.close()[0]), rows.T[::2])


def test_a_writer_without_rows_leaves_no_file(tmp_path):
    assert ShardWriter(tmp_path, "rows").close() == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("supported", [True, False])
def test_rows_in_any_order_give_equal_bytes(tmp_path, monkeypatch, supported):
    """Also on a file system that cannot set space aside."""
    if not supported:
        monkeypatch.setattr(os, "posix_fallocate", not_supported)
    rng = np.random.default_rng(0)
    values, lengths = rng.normal(size=(20, 5, 3)).astype(np.float16), rng.integers(0, 6, 20)
    there = np.arange(5)[:, None] < lengths[:, None, None]
    whole = np.where(there, values, 0).astype(np.float16)
    file = RowFile(tmp_path / "rows.npy", np.dtype(np.float16), whole.shape)
    for row in rng.permutation(20):
        file.write(row, values[row, : lengths[row]])
    file.close()
    np.save(tmp_path / "whole.npy", whole)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def not_supported(*_):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_disk_without_room_fails_at_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        RowFile(tmp_path / "rows.npy", np.dtype(np.float16), (20, 5))
