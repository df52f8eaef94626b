"""The image store: each picture once, in files of bounded size, read in order or by key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus import image_store
from mufin.corpus.image_store import ImageWriter, key_of, read_pictures, stored_pictures

CONTENTS = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


def written(folder: Path, contents: list[bytes], group: int, shard: int) -> list[str]:
    """The keys of the contents, stored in row groups and files of about these sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_store, "GROUP_BYTES", group)
        patch.setattr(image_store, "SHARD_BYTES", shard)
        writer = ImageWriter(folder)
        keys = [writer.add(content) for content in contents]
        writer.close()
    return keys


@given(CONTENTS, st.integers(1, 60), st.integers(1, 120), st.integers(1, 5), st.data())
def test_pictures_come_back_once_in_order(tmp_path_factory, contents, group, shard, chunk, data):
    folder = tmp_path_factory.mktemp("store")
    keys = written(folder, contents, group, shard)
    assert keys == [hashlib.sha256(content).hexdigest()[:32] for content in contents]
    stored = dict(zip(keys, contents))
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"part-{i:05d}.parquet" for i in range(len(paths))]
    every = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert [(row["key"], row["bytes"]) for row in every] == list(stored.items())
    asked = set(data.draw(st.lists(st.sampled_from([*stored, "f" * 32]), max_size=8)))
    expected = {key: content for key, content in stored.items() if key in asked}
    assert stored_pictures(folder, asked) == expected
    read = list(read_pictures(folder, asked, chunk))
    assert all(0 < len(part) <= chunk for part in read)
    assert [pair for part in read for pair in part] == list(expected.items())


def test_files_end_at_their_size(tmp_path):
    contents = [bytes([number]) * 10 for number in range(20)]
    written(tmp_path, contents, group=20, shard=60)
    sizes = [pq.ParquetFile(path).metadata for path in sorted(tmp_path.iterdir())]
    assert [(one.num_rows, one.num_row_groups) for one in sizes] == [(6, 3)] * 3 + [(2, 1)]


def test_a_store_without_pictures_is_one_empty_file(tmp_path):
    assert written(tmp_path, [], 10, 10) == []
    assert [pq.read_table(path).num_rows for path in tmp_path.iterdir()] == [0]
    assert stored_pictures(tmp_path, {key_of(b"a")}) == {}
    assert list(read_pictures(tmp_path, {key_of(b"a")}, 5)) == []
