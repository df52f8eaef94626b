"""Directed classifiers, pooling by means of modalities, and weight decay of lexical vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.bags import Bag, Pooling
from mufin.nn.classifiers import DirectedClassifiers
from mufin.training.optimisers import _shrink


def test_directed_classifiers_start_as_the_label_vectors():
    made = DirectedClassifiers(5, 4)
    z = normalize(torch.randn(3, 4), dim=-1)
    assert torch.allclose(made(torch.tensor([0, 4, 2]), z), z, atol=1e-6)
    assert torch.allclose(made.unseen(z), z, atol=1e-6)


@pytest.mark.parametrize("outer", [True, False])
def test_directed_classifiers_equal_a_slow_loop(outer):
    made = DirectedClassifiers(5, 4, outer)
    torch.nn.init.normal_(made.free.weight)
    torch.nn.init.normal_(made.map.weight)
    torch.nn.init.normal_(made.map.bias)
    z, ids = normalize(torch.randn(3, 4), dim=-1), [0, 4, 2]
    w = made(torch.tensor(ids), z).detach().numpy()
    m, b = made.map.weight.detach().numpy(), made.map.bias.detach().numpy()
    eta = made.free.weight.detach().numpy()
    for row, label in enumerate(ids):
        expected = m @ z[row].numpy() + b + eta[label]
        if outer:
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(w[row], expected, rtol=1e-4, atol=1e-6)
    free = made.unseen(z).detach().numpy()
    expected = z.numpy() @ m.T + b
    if outer:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(free, expected, rtol=1e-4, atol=1e-6)


def test_directed_classifiers_learn_a_relation_in_one_direction():
    """z of three labels that are the next of x: symmetric scores would find each x itself."""
    torch.manual_seed(0)
    made = DirectedClassifiers(3, 3)
    x = torch.eye(3)
    optimiser = torch.optim.Adam(made.map.parameters(), lr=0.05)
    for _ in range(200):
        scores = x @ made(torch.arange(3), torch.eye(3)).T / 0.1
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor([1, 2, 0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (x @ made.unseen(torch.eye(3)).T).argmax(1).tolist() == [1, 2, 0]


@pytest.mark.parametrize("gated", [True, False])
def test_means_give_each_modality_the_weight_of_one_row(gated):
    pooling = Pooling(gated, image_gate=-1.0, means=True)
    rows = torch.randn(2, 5, 4)
    modality = torch.tensor([[TEXT, IMAGE, IMAGE, IMAGE, -1], [-1, IMAGE, -1, -1, -1]])
    out = pooling(Bag(rows, modality.to(torch.int8)))
    gate = float(np.exp(-1.0)) if gated else 1.0
    expected = rows[0, 0] + gate * rows[0, 1:4].mean(0)
    assert torch.allclose(out[0], normalize(expected, dim=-1), atol=1e-6)
    assert torch.allclose(out[1], normalize(rows[1, 1], dim=-1), atol=1e-6)


def test_weight_decay_shrinks_the_rows_of_a_step_alone():
    table = torch.nn.EmbeddingBag(4, 3, mode="mean", sparse=True)
    before = table.weight.detach().clone()
    table(torch.tensor([1, 3, 3]), torch.tensor([0, 2])).sum().backward()
    _shrink([table.weight], 0.25)
    after = table.weight.detach()
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert torch.allclose(after[[1, 3]], before[[1, 3]] * 0.75)
