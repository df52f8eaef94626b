"""E_T over groups of titles of similar length: the results of one padded batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.corpus import title_groups
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.early_fusion import EarlyFusion
from mufin.nn.encoded import encoder_outputs
from mufin.nn.mufin import Projection
from mufin.nn.text_encoder import create_text_encoder
from mufin.nn.vision_language import create_visualbert_encoder
from mufin.ragged import Lists
from tests.support.bags import given_mufin

OPTIONS = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
) | dict(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
PRODUCTS, LONGEST = 60, 16
PICTURE, MOST = 8, 3  # numbers of a picture's vector; pictures of a product that E_T reads


@pytest.fixture(params=["all", 1], ids=["tokens", "activations"])
def model_and_store(request, monkeypatch):
    """A network with a small BERT as E_T, and titles of 0 to 16 tokens."""
    monkeypatch.setattr(title_groups, "GROUP", 20)
    torch.manual_seed(0)
    encoder = create_text_encoder("bert", "random", OPTIONS, request.param, 50)
    model = given_mufin(24)
    model.encoders["text"] = encoder
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, LONGEST + 1, PRODUCTS)
    inputs = rng.integers(1, 50, (PRODUCTS, LONGEST)) * (np.arange(LONGEST) < lengths[:, None])
    if request.param == 1:
        tokens, known = torch.from_numpy(inputs), torch.from_numpy(np.maximum(lengths, 1))
        inputs = encoder.frozen(tokens, known).numpy()
    return model, DescriptorStore.of_arrays(PRODUCTS, text=(inputs, lengths))


def whole(batch):
    """The same batch, as one group."""
    batch.text_groups = ()
    return batch


def test_outputs_and_gradients_are_those_of_one_batch(model_and_store):
    model, store = model_and_store
    model.eval()
    products, found = np.random.default_rng(1).permutation(PRODUCTS), []
    batch = store.batch(products)
    assert len(batch.text_groups) > 1
    for given in (batch, whole(store.batch(products))):
        model.zero_grad()
        rows = model.pre_embeddings(given).rows
        rows.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([rows, *gradients])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_batch_in_groups_places_each_title_in_its_bag(model_and_store):
    model, store = model_and_store
    model.eval()
    rows = model.pre_embeddings(store.batch(np.arange(PRODUCTS))).rows
    for product in range(0, PRODUCTS, 7):
        one = model.pre_embeddings(store.batch(np.array([product]))).rows[0, 0]
        assert torch.allclose(rows[product, 0], one, rtol=1e-4, atol=1e-5)


def test_dropout_depends_on_the_seed_of_the_step_alone(model_and_store):
    model, store = model_and_store
    model.train()

    def rows(seed):
        torch.manual_seed(seed)
        return model.pre_embeddings(store.batch(np.arange(PRODUCTS))).rows

    assert torch.equal(rows(3), rows(3)) and not torch.equal(rows(3), rows(4))


def test_outputs_once_are_those_of_single_titles(model_and_store):
    model, store = model_and_store
    encoder = model.encoders["text"].eval()
    out = encoder_outputs(encoder, store, "text", torch.device("cpu"), torch.float32, 8)
    for product in range(PRODUCTS):
        inputs, lengths = store.text_rows(np.array([product]))
        one = encoder(inputs, lengths)[0] if int(lengths) else torch.zeros(24)
        assert torch.allclose(torch.from_numpy(out[product]), one, rtol=1e-4, atol=1e-5)


def test_outputs_as_inputs_keep_the_order_of_the_bags(model_and_store):
    _, store = model_and_store
    store.hold("text", np.zeros((PRODUCTS, 24), np.float32))
    batch = store.batch(np.arange(PRODUCTS))
    assert batch.text_groups == () and torch.equal(batch.text_bag, batch.text_bag.sort().values)


# With pictures as tokens of a title

UNTITLED = [2, 3]


@pytest.fixture(params=["tokens", "activations", "visualbert"])
def fused_model_and_store(request):
    """Titles of 0 to 16 tokens and 0 to 5 pictures; products 0 and 1 lack one of them, 2 both."""
    torch.manual_seed(0)
    rng, model = np.random.default_rng(0), given_mufin(24)
    lengths, counts = rng.integers(2, LONGEST + 1, PRODUCTS), rng.integers(0, 6, PRODUCTS)
    lengths[[0, 2]], counts[[1, 2]] = 0, 0
    inputs = rng.integers(1, 50, (PRODUCTS, LONGEST)) * (np.arange(LONGEST) < lengths[:, None])
    del model.encoders["image"]
    if request.param == "visualbert":
        encoder = create_visualbert_encoder(
            "visualbert", "random", OPTIONS, "all", LONGEST, PICTURE, UNTITLED, 50
        )
        model.projections["image"] = Projection(PICTURE, PICTURE, "linear", 0.0)
    else:
        trainable = "all" if request.param == "tokens" else 1
        encoder = create_text_encoder("bert", "random", OPTIONS, trainable, 50)
        projection = Projection(PICTURE, encoder.token_width, "linear", 0.0)
        model.fusion = EarlyFusion(projection, encoder.token_width, MOST, False)
    if request.param == "activations":
        tokens, known = torch.from_numpy(inputs), torch.from_numpy(np.maximum(lengths, 1))
        inputs = encoder.frozen(tokens, known).numpy()
    model.encoders["text"] = encoder
    vectors = rng.standard_normal((int(counts.sum()), PICTURE), np.float32)
    pictures = Lists.of_rows(np.split(np.arange(len(vectors)), counts.cumsum()[:-1]))
    store = DescriptorStore.of_arrays(PRODUCTS, text=(inputs, lengths), images=(pictures, vectors))
    return model.eval(), store


def calls_of(encoder, name: str, monkeypatch) -> list[int]:
    """How many products each further call of the method `name` gets."""
    seen, method = [], getattr(encoder, name)
    monkeypatch.setattr(encoder, name, lambda x, *more: (seen.append(len(x)), method(x, *more))[1])
    return seen


@pytest.mark.parametrize("dropout", [0.0, 0.6])
def test_groups_with_pictures_give_the_rows_of_one_padded_batch(
    fused_model_and_store, dropout, monkeypatch
):
    """Also where modality dropout takes titles or pictures away before the fusion."""
    model, store = fused_model_and_store
    model.modality_dropout, model.training = dropout, dropout > 0
    products, found = np.random.default_rng(1).permutation(PRODUCTS), []
    calls = calls_of(model.encoders["text"], "read" if model.fusion else "forward", monkeypatch)
    for cost in (20, 10**9):  # of a group: several, and one
        monkeypatch.setattr(title_groups, "GROUP", cost)
        torch.manual_seed(0)
        model.zero_grad()
        bag = model.pre_embeddings(store.batch(products))
        bag.rows.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([bag.rows, bag.modality, *gradients])
    *groups, whole = calls
    assert len(groups) > 1 and sum(groups) == whole == PRODUCTS - 1
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_group_computes_no_token_beyond_its_longest(monkeypatch):
    torch.manual_seed(0)
    encoder = create_text_encoder("bert", "random", OPTIONS, "all", 50).eval()
    fusion = EarlyFusion(torch.nn.Identity(), encoder.token_width, MOST, False)
    lengths = torch.tensor([0, 7, 4])
    seen = torch.tensor([[True] * 4, [False] * 4, [True, True, False, False]])
    sizes = fusion.sizes(lengths, seen)
    assert sizes.tolist() == [4, 7, 6]  # a missing title is one token, and MOST pictures are read
    widths = []
    monkeypatch.setattr(encoder, "read", lambda states, n: widths.append(states.shape[1]))
    fusion(encoder, torch.ones(3, 12, dtype=torch.int64), lengths, torch.ones(3, 4, 24), seen, 7)
    assert widths == [7]
