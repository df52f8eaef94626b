"""Bags with several texts per product, against a loop over products and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus import title_groups
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.early_fusion import EarlyFusion
from mufin.nn.encoded import encoder_outputs, encoders_held
from mufin.nn.mufin import Mufin, Projection
from mufin.nn.stored import StoredDescriptors
from mufin.nn.text_encoder import create_text_encoder
from mufin.ragged import Lists
from tests.support.artifacts import sealed
from tests.support.bags import given_mufin

CPU, PRODUCTS, LONGEST, PICTURE, MOST = torch.device("cpu"), 40, 12, 6, 2
OPTIONS = dict(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=40,
)
RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 4, PRODUCTS)  # texts of each product
COUNTS[:3] = 0, 1, 3
TEXTS = Lists.of_pairs(np.repeat(np.arange(PRODUCTS), COUNTS), np.arange(COUNTS.sum()), PRODUCTS)
LENGTHS = RNG.integers(1, LONGEST + 1, COUNTS.sum())
TOKENS = RNG.integers(1, 50, (COUNTS.sum(), LONGEST)) * (np.arange(LONGEST) < LENGTHS[:, None])
PICTURES = Lists.of_rows([RNG.integers(0, 50, n) for n in RNG.integers(0, 4, PRODUCTS)])
VECTORS = RNG.normal(size=(50, PICTURE)).astype(np.float32)


def store_of(inputs: np.ndarray) -> DescriptorStore:
    return DescriptorStore.of_arrays(
        PRODUCTS, text=(inputs, LENGTHS, TEXTS), images=(PICTURES, VECTORS)
    )


@pytest.fixture(params=["all", 1], ids=["tokens", "activations"])
def encoder_and_store(request, monkeypatch):
    """A small BERT as E_T, and products of 0 to 3 texts."""
    monkeypatch.setattr(title_groups, "GROUP", 20)
    torch.manual_seed(0)
    encoder = create_text_encoder("bert", "random", OPTIONS, request.param, 50)
    inputs = TOKENS.astype(np.int32)
    if request.param == 1:
        inputs = encoder.frozen(torch.from_numpy(TOKENS), torch.from_numpy(LENGTHS)).numpy()
    return encoder, store_of(inputs)


def late(encoder) -> Mufin:
    """A network that reads texts and pictures apart."""
    torch.manual_seed(1)
    model = given_mufin(PICTURE)
    model.encoders["text"], model.projections["text"] = encoder, Projection(24, 8, "linear", 0.0)
    model.encoders["image"] = StoredDescriptors(PICTURE)
    return model.eval()


def early(encoder, pictures_in_bags: bool) -> Mufin:
    """A network whose E_T reads the pictures with the first text."""
    model = late(encoder)
    width = encoder.token_width
    projection = Projection(PICTURE, width, "linear", 0.0)
    model.fusion = EarlyFusion(projection, width, MOST, pictures_in_bags)
    if not pictures_in_bags:
        del model.encoders["image"], model.projections["image"]
    return model.eval()


def rows_by_hand(model: Mufin, store: DescriptorStore, product: int) -> list[tuple[int, Tensor]]:
    """(modality, row) of X^0 of a product, one text after the other."""
    encoder, rows, fusion = model.encoders["text"], [], model.fusion
    vectors = torch.from_numpy(VECTORS[PICTURES[product]])
    texts = list(TEXTS[product])
    if fusion is not None and (texts or len(vectors)):
        states, count = fusion.untitled[None, None], 1
        if texts:
            row = texts.pop(0)
            count = int(LENGTHS[row])
            states = encoder.token_states(store.text_rows(np.array([row]))[0])[:, :count]
        tokens = fusion.projection(vectors[:MOST])
        joined = torch.cat([states, tokens[None]], 1)
        vector = encoder.read(joined, torch.tensor([count + len(tokens)]))
        rows.append((TEXT, model.projections["text"](vector)[0]))
    for row in texts:
        vector = encoder(*store.text_rows(np.array([row])))
        rows.append((TEXT, model.projections["text"](vector)[0]))
    if "image" in model.encoders:
        rows += [(IMAGE, row) for row in model.projections["image"](vectors)]
    return rows


def assert_by_hand(model: Mufin, store: DescriptorStore, given: DescriptorStore) -> None:
    products = np.random.default_rng(1).permutation(PRODUCTS)
    with torch.no_grad():
        bag = model.pre_embeddings(given.batch(products))
    for place, product in enumerate(products):
        with torch.no_grad():
            theirs = rows_by_hand(model, store, product)
        there = bag.mask[place]
        assert bag.modality[place, there].tolist() == [kind for kind, _ in theirs]
        for ours, (_, row) in zip(bag.rows[place, there], theirs, strict=True):
            assert torch.allclose(ours, row, atol=2e-5)


def test_each_text_is_a_row_of_its_own(encoder_and_store):
    encoder, store = encoder_and_store
    assert len(store.batch(np.arange(PRODUCTS)).text_groups) > 1
    assert_by_hand(late(encoder), store, store)


@pytest.mark.parametrize("pictures_in_bags", [False, True])
def test_early_fusion_reads_the_first_text(encoder_and_store, pictures_in_bags):
    encoder, store = encoder_and_store
    assert_by_hand(early(encoder, pictures_in_bags), store, store)


@pytest.mark.parametrize("fusion", ["late", "early", "both"])
def test_held_outputs_equal_running_encoders(encoder_and_store, fusion):
    encoder, store = encoder_and_store
    model = late(encoder) if fusion == "late" else early(encoder, fusion == "both")
    products = np.random.default_rng(2).permutation(PRODUCTS)
    with torch.no_grad():
        expected = model.pre_embeddings(store.batch(products))
    with encoders_held(model, store, CPU, torch.float32) as held, torch.no_grad():
        found = model.pre_embeddings(held.batch(products))
    assert torch.equal(found.modality, expected.modality)
    assert torch.allclose(found.rows, expected.rows, atol=2e-5)


def test_outputs_of_the_encoder_are_row_by_row(encoder_and_store):
    encoder, store = encoder_and_store
    encoder.eval()
    outputs = encoder_outputs(encoder, store, "text", CPU, torch.float32, 8)
    assert outputs.shape == (len(LENGTHS), 24)
    for row in range(len(LENGTHS)):
        with torch.no_grad():
            one = encoder(*store.text_rows(np.array([row])))
        assert np.allclose(outputs[row], one[0], atol=2e-5)


def test_a_lost_modality_takes_all_texts(encoder_and_store, monkeypatch):
    encoder, store = encoder_and_store
    model = early(encoder, True)
    model.training = True  # its modules are not: only modality dropout draws
    model.modality_dropout = 1.0
    torch.manual_seed(0)
    with torch.no_grad():
        bag = model.pre_embeddings(store.batch(np.arange(PRODUCTS)))
    lost = set()
    for product in range(PRODUCTS):
        kinds = bag.modality[product]
        if len(TEXTS[product]) and len(PICTURES[product]):
            texts, pictures = int((kinds == TEXT).sum()), int((kinds == IMAGE).sum())
            # The fused row stays, of what is left
            assert (texts, pictures) in {
                (1, len(PICTURES[product])),
                (len(TEXTS[product]), 0),
            }
            lost.add(TEXT if pictures else IMAGE)
    assert lost == {TEXT, IMAGE}


def test_ragged_tokens_on_the_disk_are_the_store_in_memory(tmp_path: Path):
    out = Precomputed(tmp_path)
    flat = TOKENS[np.arange(LONGEST) < LENGTHS[:, None]].astype(np.int32)
    out.write_ragged_tokens(flat, LENGTHS.astype(np.int32), TEXTS)
    out.write_manifest(PRODUCTS, ["text"], None, {"array": "ragged_tokens.npy", "ragged": True})
    sealed(tmp_path)
    stored = DescriptorStore(tmp_path, ["text"])
    memory = DescriptorStore.of_arrays(
        PRODUCTS, text=(TOKENS.astype(np.int32), LENGTHS.astype(np.int64), TEXTS)
    )
    for products in (np.arange(PRODUCTS), np.array([2, 2, 0]), np.array([0]), np.zeros(0, int)):
        a, b = stored.batch(products), memory.batch(products)
        assert (a.text_places, a.text_groups) == (b.text_places, b.text_groups)
        for name in ("modality", "text", "text_lengths", "text_bag", "text_row"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
