"""Vectors without their bags, and rows of all members, have the bits of the plain ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.nn import embedding
from mufin.nn.embedding import embed_members, embed_vectors, joint_rows, joint_vectors, unit_rows
from tests.support.indexes import CPU, PRODUCTS, networks, store


@pytest.mark.parametrize("products", [PRODUCTS, 0])
def test_vectors_without_bags_have_the_same_bits(products, monkeypatch):
    monkeypatch.setattr(embedding, "BATCH", 7)
    members, asked = networks(), np.arange(products)[::-1].copy()
    vectors, there = embed_vectors(members, store(), asked, CPU, torch.float32)
    wanted = embed_members(members, store(), asked, CPU, torch.float32)
    assert np.array_equal(vectors, joint_vectors(wanted))
    assert np.array_equal(there, wanted[0].sizes > 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_joined_in_blocks_are_rows_joined_at_once(count, monkeypatch):
    members = embed_members(networks(), store(), np.arange(PRODUCTS), CPU, torch.float32)
    members = (members * count)[:count]
    wanted = np.concatenate([unit_rows(e.rows) for e in members], 1) / np.sqrt(np.float32(count))
    monkeypatch.setattr(embedding, "BLOCK", 5)
    assert np.array_equal(joint_rows(members), wanted)
