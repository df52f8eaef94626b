import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.ragged import Lists
from mufin.training import losses
from mufin.training.mining import (
    Relevance,
    balanced_clusters,
    draw,
    eligible_positives,
    hardest,
    members,
    shortlist_negatives,
)
from tests.support.bags import random_graph


def test_triplet_equals_the_loop_over_positives_and_negatives():
    g = torch.Generator().manual_seed(0)
    p, n = torch.rand(5, 2, generator=g), torch.rand(5, 3, generator=g)
    pm, nm = torch.rand(5, 2, generator=g) > 0.3, torch.rand(5, 3, generator=g) > 0.3
    slow = (
        sum(
            max(0.0, float(n[a, j] - p[a, i] + 0.2))
            for a in range(5)
            for i in range(2)
            for j in range(3)
            if pm[a, i] and nm[a, j]
        )
        / 5
    )
    assert float(losses.triplet(p, n, pm, nm, 0.2)) == pytest.approx(slow, rel=1e-5)


def test_cosine_hinge_equals_the_loop():
    g = torch.Generator().manual_seed(1)
    s = torch.rand(4, 6, generator=g) * 2 - 1
    relevant = torch.rand(4, 6, generator=g) > 0.6
    negative = ~relevant & (torch.rand(4, 6, generator=g) > 0.3)
    slow = (
        sum(
            (1 - float(s[i, j]))
            if relevant[i, j]
            else max(0.0, float(s[i, j]) - 0.5)
            if negative[i, j]
            else 0.0
            for i in range(4)
            for j in range(6)
        )
        / 4
    )
    assert float(losses.cosine_hinge(s, relevant, negative, 0.5)) == pytest.approx(slow, rel=1e-5)


def test_multi_positive_softmax_equals_the_loop():
    g = torch.Generator().manual_seed(2)
    s = torch.randn(4, 6, generator=g)
    relevant = torch.tensor(
        [[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0] * 6, [1, 1, 1, 0, 0, 0]]
    ).bool()
    allowed = relevant | (torch.rand(4, 6, generator=g) > 0.4)
    total, rows = 0.0, 0
    for i in range(4):
        if relevant[i].any():
            z = torch.logsumexp(s[i][allowed[i]], 0)
            total += float(sum(z - s[i, j] for j in range(6) if relevant[i, j]) / relevant[i].sum())
            rows += 1
    assert float(losses.multi_positive_softmax(s, relevant, allowed)) == pytest.approx(
        total / rows, rel=1e-5
    )


def test_softmax_with_one_positive_is_cross_entropy():
    s, target = torch.randn(7, 9), torch.arange(7)
    relevant = torch.nn.functional.one_hot(target, 9).bool()
    ours = losses.multi_positive_softmax(s, relevant, torch.ones_like(relevant))
    assert torch.allclose(ours, torch.nn.functional.cross_entropy(s, target))


def test_losses_without_relevant_labels_are_finite():
    s = torch.randn(3, 4, requires_grad=True)
    none, all_ = torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)
    (
        losses.multi_positive_softmax(s, none, all_) + losses.cosine_hinge(s, none, none, 0.5)
    ).backward()
    assert torch.isfinite(s.grad).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 999))
def test_relevance_block_equals_membership(n, labels, seed):
    graph = random_graph(n, labels, min(4, labels), seed)
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, n, 5), rng.permutation(labels)[:7]
    block = Relevance(graph, labels).block(rows, columns)
    assert block.tolist() == [[c in graph[r] for c in columns] for r in rows]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 4), st.integers(0, 999))
def test_draw_picks_distinct_eligible_values(n, labels, k, seed):
    graph, rng = random_graph(n, labels, min(4, labels), seed), np.random.default_rng(seed)
    eligible = rng.random(len(graph.values)) > 0.4
    rows = rng.integers(0, n, 6)
    picks, mask = draw(graph, rows, k, rng, eligible)
    for row, pick, there in zip(rows, picks, mask):
        allowed = graph[row][eligible[graph.offsets[row] : graph.offsets[row + 1]]]
        got = pick[there].tolist()
        assert len(set(got)) == len(got) == min(k, len(allowed)) and set(got) <= set(
            allowed.tolist()
        )


def test_draw_is_uniform_over_the_row():
    graph, rng = Lists.of_rows([[3, 5, 7, 9]]), np.random.default_rng(0)
    counts = np.bincount(
        np.concatenate([draw(graph, np.zeros(4000, int), 2, rng)[0].ravel()]), minlength=10
    )
    assert np.allclose(counts[[3, 5, 7, 9]] / 8000, 0.25, atol=0.02)


def test_a_label_keeps_a_hard_positive():
    graph = Lists.of_rows([[0, 1, 2], [3, 4], [], [5]])
    similarity = np.array([0.95, 0.5, 0.9, 0.99, 0.97, 1.0], np.float32)
    assert eligible_positives(graph, similarity, 0.9).tolist() == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]


def test_hardest_negatives_are_the_highest_scored_allowed():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7]])
    top, mask = hardest(scores, torch.tensor([[True, False, True, True]]), 2)
    assert torch.allclose(top, torch.tensor([[0.7, 0.5]])) and mask.all()
    _, mask = hardest(scores, torch.tensor([[True, False, False, False]]), 3)
    assert mask.sum() == 1


@pytest.mark.parametrize("at_once", [1, 3, 2**22])
def test_shortlist_negatives_drop_positives_and_filter_pairs(monkeypatch, at_once):
    monkeypatch.setattr("mufin.training.mining.AT_ONCE", at_once)
    shortlist = Lists.of_rows([[4, 1, 2, 3], [0, 1]])
    got = shortlist_negatives(shortlist, Lists.of_rows([[1], [0]]), Lists.of_rows([[3], []]), 5)
    assert [got[i].tolist() for i in range(2)] == [[4, 2], [1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 999))
def test_members_are_the_labels_of_both_rows(n, labels, seed):
    ours, others = (random_graph(n, labels, min(4, labels), s) for s in (seed, seed + 1))
    found = members(ours, others, labels)
    assert found.tolist() == [label in others[i] for i in range(n) for label in ours[i]]


def test_balanced_clusters_partition_and_group_what_is_alike():
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16)
    which = np.repeat(np.arange(4), 16)
    x = centres[which] + 0.05 * rng.normal(size=(64, 16))
    groups = balanced_clusters(x / np.linalg.norm(x, axis=1, keepdims=True), 16, rng)
    assert (
        sorted(np.concatenate(groups).tolist()) == list(range(64)) and max(map(len, groups)) <= 16
    )
    assert np.mean([np.bincount(which[g]).max() / len(g) for g in groups]) > 0.9


def test_transpose_twice_is_the_sorted_graph():
    graph = random_graph(20, 15, 4, 3)
    back = graph.transpose(15).transpose(20)
    assert all(back[i].tolist() == sorted(graph[i].tolist()) for i in range(20))
