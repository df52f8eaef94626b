"""Encoder inputs in several files: rows in any order, page-locked batches, rows out of range."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus import descriptors
from mufin.corpus.descriptors import DescriptorStore, _Shards
from mufin.errors import MufinError
from tests.support.artifacts import sealed


def arrays(lengths: list[int], width: int = 3) -> list[np.ndarray]:
    """Arrays whose rows all differ."""
    every = np.arange(sum(lengths) * width, dtype=np.float16).reshape(-1, width)
    return np.split(every, np.cumsum(lengths)[:-1])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_rows_of_several_files_are_those_of_one_array(lengths, data):
    shards = arrays(lengths)
    rows = np.array(data.draw(st.lists(st.integers(0, sum(lengths) - 1), max_size=12)), np.int64)
    taken = _Shards(shards).take(rows)
    assert torch.equal(taken, torch.from_numpy(np.concatenate(shards)[rows]))


@pytest.mark.parametrize("rows", [[0, 7], [-1], [3, -2, 1]])
@pytest.mark.parametrize("lengths", [[7], [3, 4]])
def test_a_row_outside_of_the_files_is_one_sentence(rows, lengths):
    with pytest.raises(MufinError, match="from arrays of 7 rows; .* `dvc repro -f precompute`"):
        _Shards(arrays(lengths)).take(np.array(rows))


@pytest.fixture
def store(tmp_path: Path) -> DescriptorStore:
    """Six products with up to three images each, in three files."""
    shards = arrays([4, 3, 5])
    for number, shard in enumerate(shards):
        np.save(tmp_path / f"{number}.npy", shard)
    counts = np.array([3, 0, 2, 1, 3, 2])
    rows = np.array([11, 0, 5, 6, 2, 11, 4, 9, 1, 3, 0])
    np.save(tmp_path / "image_offsets.npy", np.concatenate([[0], np.cumsum(counts)]))
    np.save(tmp_path / "image_rows.npy", rows.astype(np.int32))
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {
                "products": 6,
                "modalities": ["image"],
                "image": {"shards": ["0.npy", "1.npy", "2.npy"]},
            }
        )
    )
    return DescriptorStore(sealed(tmp_path), ["image"])


def placed(batch) -> dict[tuple[int, int], list[float]]:
    """The image in each place of each bag."""
    places = zip(batch.image_bag.tolist(), batch.image_row.tolist())
    return dict(zip(places, batch.images.tolist()))


def test_page_locked_batches_are_equal_read_in_file_order(store, monkeypatch):
    products = np.array([4, 0, 1, 5, 2])
    plain = store.batch(products)
    # as on a GPU, except for page-locked memory, which only a GPU gives
    empty = torch.empty
    monkeypatch.setattr(descriptors.torch, "empty", lambda *a, pin_memory, **k: empty(*a, **k))
    store.images.pinned = True
    asked, take = [], store.images.take
    monkeypatch.setattr(store.images, "take", lambda rows: (asked.extend(rows), take(rows))[1])
    locked = store.batch(products)
    assert placed(locked) == placed(plain) and torch.equal(locked.modality, plain.modality)
    assert asked == sorted(asked) and len(asked) == 10


def test_inputs_held_on_the_device_give_equal_batches(finished):
    """As tensors: so they are held where they fit into the memory of a GPU."""
    folder, modalities = finished / "data/precomputed", ["text", "image"]
    mapped, held = (DescriptorStore(folder, modalities) for _ in range(2))
    held.images = torch.from_numpy(np.concatenate(held.images.shards))
    held.text = torch.from_numpy(np.concatenate(held.text.shards))
    products = np.random.default_rng(0).permutation(mapped.num_products)[:50]
    a, b = mapped.batch(products), held.batch(products)
    for name in (
        "modality",
        "text",
        "text_lengths",
        "text_bag",
        "images",
        "image_bag",
        "image_row",
    ):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
