"""`data/precomputed`: what is written is what the descriptor store and the networks read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mufin.artifacts import arrays
from mufin.artifacts.contents import NAME
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import ArtifactError, MufinError
from mufin.ragged import Lists
from tests.support.artifacts import sealed

MODALITIES = ["text", "lexical", "image"]
PICTURES = [[2, 0], [], [1], [3, 1, 0]]  # of each product, as rows of the pixels
LENGTHS = np.array([3, 0, 2, 1], np.int32)
TOKENS = np.array([[2, 7, 3], [0, 0, 0], [2, 3, 0], [9, 0, 0]], np.int32)
TERMS = [[0, 2], [], [1], [2, 1, 0]]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
FEATURES = RNG.normal(size=(4, 5)).astype(np.float32)


def written(folder: Path, frozen: bool = False) -> Precomputed:
    """Four products: pixels and tokens, or what frozen encoders make of them."""
    out = Precomputed(folder)
    pixels = out.pixel_writer()
    pixels.add(PIXELS[:3])
    pixels.add(PIXELS[3:])
    shards, array = pixels.close(), "tokens.npy"
    if frozen:
        features = out.image_input_writer()
        features.add(FEATURES)
        shards, array = features.close(), "text_inputs.npy"
        out.write_statistics("image", FEATURES)
        titles = out.text_input_writer(np.dtype(np.float32), (4, 5))
        for row in (3, 0, 2):
            titles.write(row, FEATURES[row])
        titles.close()
        out.write_statistics("text", FEATURES[LENGTHS > 0])
    out.write_image_rows(Lists.of_rows(PICTURES))
    out.write_tokens(TOKENS, LENGTHS)
    out.write_lexical(["mug", "red", "red mug"], Lists.of_rows(TERMS, np.int32))
    out.write_manifest(4, MODALITIES, {"shards": shards}, {"array": array})
    sealed(folder)
    return out


@pytest.mark.parametrize("frozen", [False, True], ids=["inputs", "descriptors"])
@pytest.mark.parametrize("limit", [2**32, 300], ids=["one shard", "shards"])
def test_the_store_reads_what_was_written(tmp_path, monkeypatch, frozen, limit):
    monkeypatch.setattr(arrays, "SHARD_BYTES", limit)
    written(tmp_path, frozen)
    store = DescriptorStore(tmp_path, MODALITIES)
    assert store.num_products == 4 and store.num_images == 4
    for products in ([0, 1, 2, 3], [3, 3, 1], [1], []):
        batch = store.batch(np.array(products, np.int64))
        asked = [p for p in products if LENGTHS[p]]
        assert batch.text_lengths.tolist() == LENGTHS[asked].tolist()
        text = FEATURES if frozen else TOKENS
        width = 5 if frozen else max(LENGTHS[asked], default=1)
        assert np.array_equal(batch.text.numpy(), text[asked][:, :width])
        pictures = [row for p in products for row in PICTURES[p]]
        assert np.array_equal(batch.images.numpy(), (FEATURES if frozen else PIXELS)[pictures])
        assert batch.lexical_ids.tolist() == [term for p in products for term in TERMS[p]]
        for bag, p in enumerate(products):
            expected = [0, 2] if LENGTHS[p] else [-1, -1]
            expected += [1] * len(PICTURES[p])
            padding = [-1] * (batch.width - len(expected))
            assert batch.modality[bag].tolist() == expected + padding


def test_the_readers_return_what_was_written(tmp_path):
    stored = written(tmp_path, frozen=True)
    assert stored.lexical_terms() == ["mug", "red", "red mug"]
    assert [stored.image_rows()[p].tolist() for p in range(4)] == PICTURES
    assert [stored.lexical_rows()[p].tolist() for p in range(4)] == TERMS
    assert stored.token_lengths().dtype == np.int64
    assert stored.token_lengths().tolist() == LENGTHS.tolist()
    assert all(isinstance(shard, np.memmap) for shard in stored.image_shards())
    assert isinstance(stored.text_inputs(), np.memmap)
    for modality, rows in (("image", FEATURES), ("text", FEATURES[[0, 2, 3]])):
        mean, std = stored.statistics(modality)
        assert mean.dtype == std.dtype == np.float32
        np.testing.assert_allclose(mean, [column.mean() for column in rows.T], rtol=1e-6)
        np.testing.assert_allclose(std, [column.std() for column in rows.T], rtol=1e-6)


def test_a_product_without_a_title_has_zeros_as_text_inputs(tmp_path):
    inputs = written(tmp_path, frozen=True).text_inputs()
    assert not inputs[1].any() and inputs[0].any()


@pytest.mark.parametrize("frozen", [False, True], ids=["inputs", "descriptors"])
def test_a_missing_array_is_one_sentence(tmp_path, frozen):
    whole = written(tmp_path, frozen)
    names = {path.name for path in tmp_path.iterdir()} - {NAME}
    assert {"image_offsets.npy", "image_rows.npy", "token_lengths.npy", "manifest.json"} < names
    for name in sorted(names):
        path = tmp_path / name
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(ArtifactError) as error:
            DescriptorStore(tmp_path, MODALITIES)
            whole.lexical_terms()
            whole.statistics("image")
            whole.statistics("text")
        said = str(error.value)
        assert said.startswith(f"{path} is missing; `dvc checkout") and "\n" not in said
        path.write_bytes(content)


def test_a_store_of_other_modalities_names_the_remedy(tmp_path):
    out = Precomputed(tmp_path)
    out.write_tokens(TOKENS, LENGTHS)
    out.write_manifest(4, ["text"], None, {"array": "tokens.npy"})
    sealed(tmp_path)
    assert torch.equal(
        DescriptorStore(tmp_path, ["text"]).batch(np.array([2])).text,
        torch.from_numpy(TOKENS[2:3, :2]),
    )
    with pytest.raises(MufinError, match=r"made without \['image'\]; run `dvc repro precompute`"):
        DescriptorStore(tmp_path, ["text", "image"])
