"""The image store: each picture once, in files of bounded size, read in order or by key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus import image_store
from mufin.corpus.image_store import (
    ImageWriter,
    key_of,
    read_pictures,
    stored_keys,
    stored_pictures,
)
from mufin.errors import ArtifactError

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


def in_chunks(folder: Path, asked: set[str], chunk: int) -> list[list[tuple[str, bytes]]]:
    """The chunks of all files of a store."""
    keys = np.array(sorted(asked), dtype=str)
    wanted, missing = stored_keys(folder, keys)
    assert asked == set(missing).union(*wanted.values())
    return [part for path, some in wanted.items() for part in read_pictures(path, some, chunk)]


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
    read = in_chunks(folder, asked, chunk)
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
    assert in_chunks(tmp_path, {key_of(b"a")}, 5) == []


@pytest.fixture
def folder(tmp_path) -> Path:
    """A store of two files with 10 pictures in 5 row groups."""
    written(tmp_path, [bytes([number]) * 1000 for number in range(10)], group=2000, shard=6000)
    assert len(list(tmp_path.iterdir())) == 2
    return tmp_path


def refused(folder: Path, key: str) -> None:
    """Both readers name the file and the remedy in one short sentence."""
    for read in (
        lambda: in_chunks(folder, {key}, 3),
        lambda: stored_pictures(folder, {key}),
    ):
        with pytest.raises(ArtifactError, match="is damaged|has no part") as error:
            read()
        said = str(error.value)
        assert "dvc checkout" in said or "dvc repro" in said
        assert str(folder) in said and "\n" not in said and len(said) - len(str(folder)) < 250


@pytest.mark.parametrize("left", [0, 3, 100, 3000, -1])
@pytest.mark.parametrize("part", [0, 1])
def test_a_truncated_file_is_named(folder, part, left):
    path = folder / f"part-0000{part}.parquet"
    path.write_bytes(path.read_bytes()[:left])
    refused(folder, key_of(b"\x09" * 1000))


def test_changed_bytes_of_a_picture_are_seen(folder):
    path = folder / "part-00000.parquet"
    content = path.read_bytes()
    place = content.index(b"\x03" * 1000)
    path.write_bytes(content[:place] + b"\x07" + content[place + 1 :])
    refused(folder, key_of(b"\x03" * 1000))
    good = key_of(b"\x04" * 1000)
    assert stored_pictures(folder, {good}) == {good: b"\x04" * 1000}


@pytest.mark.parametrize(
    "table",
    [pa.table({"a": [1]}), pa.table({"key": ["a"], "bytes": [None]}), pa.table({"key": [1]})],
)
def test_a_file_of_another_kind_is_named(folder, table):
    pq.write_table(table, folder / "part-00000.parquet")
    refused(folder, "a")


def test_a_store_without_files_is_missing(tmp_path):
    refused(tmp_path / "images", "a")


def test_flipped_bytes_give_the_pictures_or_a_sentence(folder):
    rng, path = np.random.default_rng(0), folder / "part-00000.parquet"
    content, wanted = path.read_bytes(), {key_of(bytes([n]) * 1000) for n in range(10)}
    for _ in range(150):
        broken = np.frombuffer(content, np.uint8).copy()
        broken[rng.integers(4, len(broken), 8)] ^= np.uint8(1 << rng.integers(0, 8))
        path.write_bytes(broken.tobytes())
        try:
            found = dict(pair for part in in_chunks(folder, wanted, 3) for pair in part)
        except ArtifactError:
            continue
        assert all(key_of(picture) == key for key, picture in found.items())
