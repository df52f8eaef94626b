"""The blocked log-sum-exp: gradients by finite differences, and the plain one with its matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mufin.training.softmax_head import Pairs, log_sum_exp
from tests.support.allocations import Largest

A, L, D = 5, 23, 4


def given(dtype=torch.float64, labels: int = L):
    """Unit vectors, ten pairs to pick and eight others to leave out, sorted by label."""
    g = torch.Generator().manual_seed(0)
    x, w = (normalize(torch.randn(n, D, generator=g, dtype=dtype), dim=-1) for n in (A, labels))
    keys = np.random.default_rng(0).permutation(A * labels)[:18]
    picked, left_out = np.sort(keys[:10]), np.sort(keys[10:])
    return x.requires_grad_(), w.requires_grad_(), picked, left_out


def pairs(keys: np.ndarray, block: int, labels: int = L) -> Pairs:
    return Pairs.of(keys % A, keys // A, labels, block)


def plain(x, w, picked, left_out, temperature):
    scores = x @ w.T / temperature
    total = scores.index_put(
        (torch.from_numpy(left_out % A), torch.from_numpy(left_out // A)),
        torch.tensor(-torch.inf, dtype=x.dtype),
    ).logsumexp(1)
    return total, scores[torch.from_numpy(picked % A), torch.from_numpy(picked // A)]


@pytest.mark.parametrize("block", [1, 5, 23, 100])
def test_gradients_are_those_of_finite_differences(block):
    x, w, picked, left_out = given()

    def run(x, w):
        return log_sum_exp(x, w, 0.3, block, pairs(picked, block), pairs(left_out, block))

    assert torch.autograd.gradcheck(run, (x, w))


@pytest.mark.parametrize("block", [1, 4, 22, 64])
def test_blocks_give_the_plain_sums_and_gradients(block):
    x, w, picked, left_out = given()
    ours = log_sum_exp(x, w, 0.1, block, pairs(picked, block), pairs(left_out, block))
    theirs = plain(x, w, picked, left_out, 0.1)
    weights = [torch.linspace(1, 2, len(t), dtype=x.dtype) for t in ours]
    found = []
    for outs in (ours, theirs):
        value = sum((t * k).sum() for t, k in zip(outs, weights))
        found.append(torch.autograd.grad(value, (x, w)))
    for a, b in zip((*ours, *found[0]), (*theirs, *found[1]), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_datapoint_without_labels_has_no_gradient():
    x, w, _, _ = given()
    every = np.arange(L) * A + 2  # all labels of datapoint 2
    total, _ = log_sum_exp(x, w, 0.1, 7, pairs(np.zeros(0, np.int64), 7), pairs(every, 7))
    total[total > -torch.inf].sum().backward()
    assert total[2] == -torch.inf and not x.grad[2].any()
    assert torch.isfinite(x.grad).all() and torch.isfinite(w.grad).all()


def test_bfloat16_products_stay_near_the_float32_ones():
    x, w, picked, left_out = given(torch.float32, 500)
    found = []
    for precision in (torch.float32, torch.bfloat16):
        made = [pairs(keys, 128, 500) for keys in (picked, left_out)]
        total, scores = log_sum_exp(x, w, 0.1, 128, *made, precision)
        assert total.dtype == scores.dtype == torch.float32
        found.append((total, *torch.autograd.grad(total.sum() - scores.sum(), (x, w))))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=0.02, atol=0.02)


def test_no_tensor_has_a_score_of_every_pair():
    labels, block = 40_000, 64
    x, w, picked, left_out = given(torch.float32, labels)
    made = [pairs(keys, block, labels) for keys in (picked, left_out)]
    with Largest([x, w]) as largest:
        total, scores = log_sum_exp(x, w, 0.1, block, *made)
        (total.sum() - scores.sum()).backward()
    assert largest.numbers == labels * D < labels * A  # the gradient of w alone
