"""Attention, scores, projections, pooling and classifiers against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import layer_norm, normalize

from mufin.nn.attention import AttentionBlock
from mufin.nn.bags import Bag
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.mufin import Projection
from mufin.nn.own_scores import OwnScores
from tests.support.bags import GivenStore, bare_mufin, random_bag, shaken, tiny_mufin


def slow_attention(block: AttentionBlock, x, z, z_mask):
    """One bag pair, one row, one head at a time, straight from the formula."""
    dim, heads = x.shape[-1], block.heads
    size = dim // heads
    q, k, v = block.query(x), block.key(z), block.value(z)
    out = []
    for i in range(len(x)):
        parts = []
        for h in range(heads):
            s = slice(h * size, (h + 1) * size)
            scores = [
                float((q[i, s] @ k[j, s]).detach()) / math.sqrt(size)
                for j in range(len(z))
                if z_mask[j]
            ]
            top = max(scores, default=0.0)
            weights = [math.exp(a - top) for a in scores]
            total = sum(weights) or 1.0
            rows = [v[j, s] for j in range(len(z)) if z_mask[j]]
            parts.append(
                sum(
                    (w / total * r for w, r in zip(weights, rows)), torch.zeros(size, dtype=x.dtype)
                )
            )
        y = block.out(torch.cat(parts)) + x[i]
        out.append(layer_norm(y, (dim,), block.norm.weight, block.norm.bias))
    return torch.stack(out)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_a_slow_loop_over_rows_and_heads(heads):
    block = shaken(AttentionBlock(8, heads)).double()
    x, z = random_bag(5, 3, 8, 1), random_bag(5, 4, 8, 2)
    fast = block.attend(x.rows, z.rows, x.mask, z.mask)
    for b in range(5):
        slow = slow_attention(block, x.rows[b], z.rows[b], z.mask[b])
        assert torch.allclose(fast[b][x.mask[b]], slow[x.mask[b]], atol=1e-10)
        assert (fast[b][~x.mask[b]] == 0).all()


def test_attention_starts_from_the_identity():
    block = AttentionBlock(6).double()
    x = random_bag(4, 1, 6)
    y = block.attend(x.rows, x.rows, x.mask, x.mask)  # a bag of one attends to itself
    assert torch.allclose(y, layer_norm(2 * x.rows, (6,)), atol=1e-12)


def test_padding_never_changes_a_result():
    model = shaken(tiny_mufin()).double()
    x, z = random_bag(6, 3, 8, 1), random_bag(6, 4, 8, 2)

    def padded(bag, junk):
        rows = torch.cat([bag.rows, torch.full((6, 2, 8), junk, dtype=torch.float64)], 1)
        return Bag(rows, torch.cat([bag.modality, torch.full((6, 2), -1, dtype=torch.int8)], 1))

    assert torch.allclose(
        model.adapted(x, z), model.adapted(padded(x, 7.0), padded(z, -9.0)), atol=1e-12
    )


def test_an_empty_bag_gives_zeros_and_never_nan():
    model = shaken(tiny_mufin()).double()
    x, z = random_bag(3, 2, 8, 1, empty=True), random_bag(3, 2, 8, 2, empty=True)
    adapted = model.adapted(x, z)
    adapted.sum().backward()
    assert (adapted[0] == 0).all() and torch.isfinite(adapted).all()
    assert all(torch.isfinite(p.grad).all() for p in model.cross_attention.parameters())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_scores_equal_the_explicit_adapted_vectors(mx, mz, heads, gates, seed):
    model = shaken(bare_mufin(heads=heads, gates=gates), seed).double()
    x, z = random_bag(4, mx, 8, seed), random_bag(6, mz, 8, seed + 1)
    w = torch.randn(6, 8, dtype=torch.float64)
    side = model.label_side(z, w)
    b, u = (i.flatten() for i in torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij"))
    slow = (model.adapted(x[b], z[u]) * w[u]).sum(-1).view(4, 6)
    assert torch.allclose(model.scores(x, side), slow, atol=1e-9)
    own = torch.randint(0, 6, (4, 3))
    assert torch.allclose(model.scores(x, side[own]), slow.gather(1, own), atol=1e-9)


def test_scores_have_the_gradients_of_the_explicit_form():
    model = shaken(tiny_mufin()).double()
    x, z, w = random_bag(3, 2, 8, 1), random_bag(4, 3, 8, 2), torch.randn(4, 8, dtype=torch.float64)
    b, u = (i.flatten() for i in torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"))
    fast = torch.autograd.grad(
        model.scores(x, model.label_side(z, w)).square().sum(),
        list(model.cross_attention.parameters()),
    )
    slow = torch.autograd.grad(
        (model.adapted(x[b], z[u]) * w[u]).sum(-1).square().sum(),
        list(model.cross_attention.parameters()),
    )
    assert all(torch.allclose(f, s, atol=1e-8) for f, s in zip(fast, slow))


def test_maxpool_projection_takes_the_maximum_of_each_group():
    x = torch.randn(5, 768)
    assert torch.equal(Projection(768, 192, "maxpool", 0.0)(x), x.view(5, 192, 4).amax(-1))


def test_standardised_projection_centres_and_scales():
    x = torch.randn(5, 6)
    mean, std = torch.randn(6), torch.rand(6) + 0.5
    p = Projection(6, 6, "maxpool", 0.0, mean, std)
    assert torch.allclose(p(x), (x - mean) / std, atol=1e-6)


def test_a_vector_is_the_normalised_sum_of_rows():
    model = tiny_mufin().double()
    bag = random_bag(5, 3, 8)
    slow = torch.stack([normalize(bag.rows[i][bag.mask[i]].sum(0), dim=0) for i in range(5)])
    assert torch.allclose(model.vector(bag), slow, atol=1e-12)


def test_a_classifier_is_the_normalised_mix():
    c = LabelClassifiers(4, 6, alpha=0.2)
    z = normalize(torch.randn(4, 6), dim=-1)
    eta = normalize(c.free.weight, dim=-1)
    assert torch.allclose(c(torch.arange(4), z), normalize(0.2 * z + 0.8 * eta, dim=-1), atol=1e-6)
    plain = LabelClassifiers(4, 6, alpha=0.2, outer_norm=False)
    plain.load_state_dict(c.state_dict())
    assert torch.allclose(plain(torch.arange(4), z), 0.2 * z + 0.8 * eta, atol=1e-6)


def test_eta_and_alpha_have_gradients_of_the_batch_alone():
    c = LabelClassifiers(9, 6)
    c(torch.tensor([2, 5]), normalize(torch.randn(2, 6), dim=-1)).square().sum().backward()
    for table in (c.free, c.mix):
        assert table.weight.grad.is_sparse and table.weight.grad.coalesce().indices().tolist() == [
            [2, 5]
        ]


def test_modality_dropout_takes_one_modality_of_two():
    """Never the only one of a bag, and only in training."""
    model = bare_mufin(modality_dropout=0.5)
    modality = torch.tensor([[0, 1]] * 200 + [[0, -1]] * 200, dtype=torch.int8)
    torch.manual_seed(0)
    dropped = model.train()._drop_modalities(modality)
    counts = (dropped >= 0).sum(1)
    assert (
        (counts[200:] == 1).all()
        and 60 < int((counts[:200] == 1).sum()) < 140
        and (counts > 0).all()
    )
    assert torch.equal(model.eval()._drop_modalities(modality), modality)


def test_a_bag_without_a_picture_is_its_title():
    model, store = shaken(tiny_mufin()).eval(), GivenStore(6, 12)
    both = model.bag(store.batch(np.array([0, 1])))
    alone = model.bag(store.batch(np.array([0])))
    assert (both.modality[0] == torch.tensor([0, -1])).all()
    assert torch.allclose(both.rows[0, :1], alone.rows[0, :1], atol=1e-6)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_own_scores_are_those_of_adapted_pairs(heads, gated):
    network = shaken(bare_mufin(dim=8, heads=heads, gates=gated)).double().eval()
    x, z = random_bag(1, 3, 8, 1), random_bag(6, 4, 8, 2)
    z.modality[2] = -1  # a label without descriptors
    w = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    every = Bag(x.rows.expand(6, -1, -1), x.modality.expand(6, -1))
    wanted = (network.adapted(every, z) * w).sum(-1)
    assert torch.allclose(OwnScores(network)(x, z, w), wanted, atol=1e-12)
    assert torch.allclose(network.scores(x, network.label_side(z, w))[0], wanted, atol=1e-9)
