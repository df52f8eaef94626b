"""Inputs of encoders, read from the store: the rows, and batches as of all products' store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.contents import hash_of
from mufin.artifacts.precomputed import Precomputed
from mufin.cluster.encoder_inputs import PartReader, send_inputs
from mufin.cluster.store import Store
from mufin.cluster.stored_rows import StoredArray, StoredRows
from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import MufinError
from mufin.ragged import Lists, offsets_of
from tests.support.artifacts import sealed

SHAPE = (3, 2)
LENGTHS = (5, 1, 9)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[StoredRows, np.ndarray]:
    """Rows of three files in a store, and all of them in memory."""
    folder = tmp_path_factory.mktemp("arrays")
    (folder / "store").mkdir()
    store, arrays = Store((folder / "store").as_uri()), []
    rows = np.random.default_rng(0).normal(size=(sum(LENGTHS), *SHAPE)).astype(np.float16)
    for number, part in enumerate(np.split(rows, np.cumsum(LENGTHS)[:-1])):
        path = folder / f"{number}.npy"
        np.save(path, part)
        arrays.append(StoredArray.of(np.load(path, mmap_mode="r"), store.put(path)))
    return StoredRows(store, arrays), rows


@given(st.sets(st.integers(0, sum(LENGTHS) - 1)))
@settings(max_examples=50)
def test_stored_rows_are_those_in_memory(stored, chosen):
    index = np.array(sorted(chosen), np.int64)
    found = stored[0].take(index)
    assert found.dtype == stored[1].dtype and np.array_equal(found, stored[1][index])


def test_a_file_that_is_not_whole_is_one_sentence(stored, tmp_path):
    rows, _ = stored
    np.save(tmp_path / "short.npy", np.zeros((2, *SHAPE), np.float16))
    digest = hash_of(tmp_path / "short.npy")
    rows.store.put(tmp_path / "short.npy")
    longer = dataclasses.replace(rows.arrays[0], digest=digest)
    with pytest.raises(MufinError, match="is not whole; delete it and run the same command"):
        StoredRows(rows.store, [longer]).take(np.array([0, 4]))


def test_a_part_has_the_batches_of_all_products(finished, tmp_path):
    (tmp_path / "store").mkdir()
    store, folder = Store((tmp_path / "store").as_uri()), finished / "data/precomputed"
    assert_batches_of_all(folder, ["text", "image", "lexical"], store)


def test_a_part_has_all_texts_of_its_products(tmp_path):
    (tmp_path / "store").mkdir()
    rng, folder = np.random.default_rng(0), tmp_path / "precomputed"
    counts, out = rng.integers(0, 4, 60), Precomputed(folder)
    folder.mkdir()
    lengths = rng.integers(1, 9, counts.sum()).astype(np.int32)
    tokens = rng.integers(1, 50, lengths.sum()).astype(np.int32)
    texts = Lists(offsets_of(counts), np.arange(counts.sum()))
    out.write_ragged_tokens(tokens, lengths, texts)
    out.write_manifest(60, ["text"], None, {"array": "ragged_tokens.npy", "ragged": True})
    sealed(folder)
    assert_batches_of_all(folder, ["text"], Store((tmp_path / "store").as_uri()))


def assert_batches_of_all(folder, modalities: list[str], store: Store) -> None:
    """A part of 40 products in any order has the batches that the store of all gives."""
    inputs = send_inputs(folder, modalities, store)
    reader = PartReader(store, inputs, Precomputed(folder))
    every = DescriptorStore(folder, modalities)
    products = np.random.default_rng(1).permutation(every.num_products)[:40]
    part = reader.read(products)
    for start in range(0, 40, 16):
        mine = part.batch(np.arange(start, min(start + 16, 40)))
        wanted = every.batch(products[start : start + 16])
        for field in dataclasses.fields(wanted):
            one, two = getattr(mine, field.name), getattr(wanted, field.name)
            equal = torch.equal(one, two) if isinstance(two, torch.Tensor) else one == two
            assert equal, field.name
    assert len(reader.read(products[:0]).batch(products[:0]).modality) == 0
