"""Vectors of images in data/raw: what is read is what was written, and their statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts import arrays
from mufin.artifacts.contents import seal
from mufin.corpus import image_vectors
from mufin.corpus.image_vectors import StoredVectors, keys_of, moments, rows_of, vector_writer
from mufin.errors import ArtifactError


@pytest.fixture
def stored(tmp_path, monkeypatch) -> np.ndarray:
    """100 vectors in several files, of which several batches are read."""
    monkeypatch.setattr(arrays, "SHARD_BYTES", 400)
    monkeypatch.setattr(image_vectors, "CHUNK", 7)
    vectors = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float16)
    writer = vector_writer(tmp_path)
    for start in range(0, 100, 9):
        writer.add(vectors[start : start + 9])
    assert len(writer.close()) > 2
    seal(tmp_path)
    return vectors


@pytest.mark.parametrize("rows", [range(100), [0, 99], [5], [], range(0, 100, 3), [63, 64, 65]])
def test_batches_are_the_rows_of_all_files(tmp_path, stored, rows):
    found = StoredVectors(tmp_path)
    assert (len(found), found.width) == stored.shape
    rows = np.array(rows, np.int64)
    batches = list(found.batches(rows))
    assert all(len(batch) <= 7 for batch in batches)
    assert np.array_equal(np.concatenate([stored[:0], *batches]), stored[rows])


def test_a_row_that_is_not_stored_is_named(tmp_path, stored):
    with pytest.raises(ArtifactError, match="vectors 3 to 100 are requested of 100 in data/raw"):
        list(StoredVectors(tmp_path).batches(np.array([3, 100])))


def test_changed_vectors_are_not_read(tmp_path, stored):
    path = next(tmp_path.glob("*.npy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        StoredVectors(tmp_path)


def test_without_files_there_are_no_vectors(tmp_path):
    assert len(StoredVectors(tmp_path)) == 0


def test_keys_are_rows():
    assert rows_of(keys_of([0, 7, 10**12])).tolist() == [0, 7, 10**12]
    for key in ("ab12", "vector#", "vector#x", "vector#" + "9" * 30):
        with pytest.raises(ArtifactError, match="an image that is no vector"):
            rows_of([key])


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    shift=st.sampled_from([0.0, 1e4, -1e6]),
)
def test_moments_are_numpys_of_all_rows(seed, sizes, shift):
    rng = np.random.default_rng(seed)
    batches = [(rng.normal(size=(size, 3)) + shift).astype(np.float32) for size in sizes]
    mean, std = moments(iter(batches), 3)
    every = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(std, every.std(0), rtol=1e-5, atol=1e-6)
