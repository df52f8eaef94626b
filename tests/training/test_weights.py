"""Weights of pairs in training: how often they are drawn, and their share of the softmax."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.curated import Split
from mufin.nn.classifiers import LabelClassifiers
from mufin.ragged import Lists
from mufin.training import losses
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from mufin.training.mining import Relevance, draw, positives_of
from mufin.training.optimisers import Optimisers
from mufin.training.pretraining import Pretraining
from tests.support.bags import GivenStore, random_graph, tiny_mufin
from tests.support.training import FINETUNE, PRETRAIN, RATES, WIDTH, machine

DRAWS = 20_000


def counted(weights: list[float], k: int) -> dict[tuple, float]:
    """The share of each order of k picks among DRAWS draws."""
    graph = Lists.of_rows([range(len(weights))])
    rng, rows = np.random.default_rng(0), np.zeros(DRAWS, int)
    picks, mask = draw(graph, rows, k, rng, weights=np.float32(weights))
    assert mask.all()
    orders, counts = np.unique(picks, axis=0, return_counts=True)
    return {tuple(order.tolist()): count / DRAWS for order, count in zip(orders, counts)}


@pytest.mark.parametrize("k", [1, 2, 3])
def test_draws_follow_the_weights_without_replacement(k):
    weights = [1.0, 0.125, 3.0, 0.5]
    found = counted(weights, k)
    for order in itertools.permutations(range(4), k):
        expected, left = 1.0, sum(weights)
        for value in order:
            expected *= weights[value] / left
            left -= weights[value]
        assert found.get(order, 0) == pytest.approx(expected, abs=0.015)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_equal_weights_draw_the_same_as_none(n, labels, weight, seed):
    graph = random_graph(n, labels, min(4, labels), seed)
    weights = np.full(len(graph.values), weight, np.float32)
    eligible = np.random.default_rng(seed).random(len(graph.values)) > 0.3
    rows, rngs = np.arange(n), [np.random.default_rng(5) for _ in range(2)]
    plain, weighted = (
        draw(graph, rows, 3, rng, eligible, w) for rng, w in zip(rngs, (None, weights))
    )
    assert (plain[0] == weighted[0]).all() and (plain[1] == weighted[1]).all()
    assert rngs[0].random() == rngs[1].random()  # and as many random numbers are used


def test_a_tiny_weight_is_no_missing_one():
    graph = Lists.of_rows([[4, 9]])
    picks, mask = draw(
        graph, np.zeros(50, int), 2, np.random.default_rng(0), None, np.float32([1e-30, 1e30])
    )
    assert mask.all() and (np.sort(picks, 1) == [4, 9]).all()


def test_only_eligible_values_are_drawn_by_weight():
    graph, eligible = Lists.of_rows([[0, 1, 2]]), np.array([True, False, True])
    rows, weights = np.zeros(DRAWS, int), np.float32([1, 100, 3])
    picks, _ = draw(graph, rows, 1, np.random.default_rng(0), eligible, weights)
    assert np.bincount(picks.ravel(), minlength=3) / DRAWS == pytest.approx(
        [0.25, 0, 0.75], abs=0.01
    )


def test_the_softmax_is_cross_entropy_with_the_weights_as_target():
    g = torch.Generator().manual_seed(0)
    s, weight = torch.randn(4, 6, generator=g), torch.rand(4, 6, generator=g) + 0.1
    relevant = torch.rand(4, 6, generator=g) > 0.5
    relevant[2] = False
    allowed = relevant | (torch.rand(4, 6, generator=g) > 0.4)
    rows = []
    for i in (i for i in range(4) if relevant[i].any()):
        target = weight[i] * relevant[i] / (weight[i] * relevant[i]).sum()
        log_p = s[i] - torch.logsumexp(s[i][allowed[i]], 0)
        rows.append(-float(sum(target[j] * log_p[j] for j in range(6) if relevant[i, j])))
    found = losses.multi_positive_softmax(s, relevant, allowed, weight)
    assert float(found) == pytest.approx(np.mean(rows), rel=1e-5)
    turned = losses.multi_positive_softmax(s.T, relevant.T, allowed.T, weight.T)
    both = losses.symmetric_softmax(s, relevant, allowed, weight)
    assert float(both) == pytest.approx(float(found + turned) / 2, rel=1e-6)


def test_a_weight_of_one_leaves_the_softmax_as_it_was():
    s, relevant = torch.randn(5, 7), torch.rand(5, 7) > 0.6
    relevant[0] = False
    allowed = relevant | (torch.rand(5, 7) > 0.5)
    plain = losses.symmetric_softmax(s, relevant, allowed)
    assert torch.equal(plain, losses.symmetric_softmax(s, relevant, allowed, torch.ones(5, 7)))


def test_a_row_without_positives_has_a_finite_gradient():
    s = torch.randn(2, 3, requires_grad=True)
    none, every = torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    losses.symmetric_softmax(s, none, every, torch.zeros(2, 3)).backward()
    assert torch.isfinite(s.grad).all()


def split(rows: list, excluded: list, weights: list) -> Split:
    return Split(
        np.arange(len(rows)), Lists.of_rows(rows), Lists.of_rows(excluded), np.float32(weights)
    )


def test_weights_stay_with_their_pairs_without_filter_pairs():
    asked = split([[3, 1, 7], [], [7]], [[1, 9], [7], []], [0.1, 0.2, 0.3, 0.4])
    positives, weights = positives_of(asked)
    assert positives.values.tolist() == [3, 7, 7]
    assert weights.tolist() == np.float32([0.1, 0.3, 0.4]).tolist()
    assert positives_of(replace(asked, weights=None))[1] is None
    taken = asked.take(np.array([2, 0]))
    assert taken.weights.tolist() == np.float32([0.4, 0.1, 0.2, 0.3]).tolist()


def test_a_block_of_weights_is_zero_where_nothing_is_relevant():
    graph, weights = Lists.of_rows([[2, 0], [], [1, 3]]), np.float32([0.5, 2, 3, 4])
    block = Relevance(graph, 5).weights(np.array([2, 0, 1]), np.array([3, 4, 2]), weights)
    assert block.tolist() == [[4, 0, 0], [0, 0, 0.5], [0, 0, 0]]


# Jobs: each datapoint has a strong and a weak label. Nothing else tells the two apart.

COUNT = 12
STRONG = np.arange(COUNT)  # the strong label of each datapoint; the next one is its weak label


def weighted(strong: float) -> Split:
    rows = [[i, (i + 1) % COUNT] for i in range(COUNT)]
    return split(rows, [[]] * COUNT, [strong, 1.0] * COUNT)


@pytest.mark.parametrize("batching", ["labels", "datapoints"])
def test_module_one_draws_strong_pairs_and_knows_their_weights(tmp_path, batching):
    changes = PRETRAIN | {"batching": batching, "positives": 1, "batch_size": COUNT}
    job = Pretraining(
        tiny_mufin(WIDTH),
        GivenStore(COUNT, WIDTH),
        weighted(9.0),
        np.arange(COUNT),
        SimpleNamespace(**changes),
        3,
        machine(tmp_path),
    )
    rng, strong = np.random.default_rng(0), 0
    anchors = np.arange(COUNT)
    for _ in range(100):
        picks, _ = draw(job.graph, anchors, 1, rng, None, job.weights)
        strong += int((picks[:, 0] == anchors).sum())
    assert strong / (100 * COUNT) == pytest.approx(0.9, abs=0.03)
    step = job.prepare(anchors, rng)
    assert step.weight.bool().equal(step.relevant)
    assert set(step.weight[step.relevant].tolist()) <= {1.0, 9.0}
    assert torch.isfinite(job.loss(step))


def test_module_four_learns_the_weights(tmp_path):
    def scores(strong: float) -> np.ndarray:
        model = tiny_mufin(WIDTH, dropout=0.0)
        torch.manual_seed(1)
        model.classifiers = LabelClassifiers(COUNT, model.dim)
        changes = {
            "loss": "softmax",
            "candidates": "all",
            "epochs": 60,
            "batch_size": COUNT,
            "select": "last",
        }
        job = Finetuning(
            model,
            GivenStore(COUNT, WIDTH),
            weighted(strong),
            np.arange(COUNT),
            Lists.of_rows([[]] * COUNT),
            SimpleNamespace(**FINETUNE | changes),
            3,
            lambda m: {},
        )
        optimisers = Optimisers(model, RATES, 0.0, with_cross_attention=True)
        train(job, optimisers, 3, 0, machine(tmp_path / str(strong), 1e9))
        step = job.prepare(np.arange(COUNT), np.random.default_rng(0))
        with torch.no_grad():
            model.eval()
            bags = model.bag(step.batch)
            x, z = bags[step.datapoint_at], bags[step.label_at]
            w = model.classifier(step.labels, model.vector(z))
            return model.scores(x, model.label_side(z, w)).numpy()

    weak = (STRONG + 1) % COUNT
    lead = {
        s: (m[STRONG, STRONG] - m[STRONG, weak]).mean() for s in (9.0, 1 / 9) for m in [scores(s)]
    }
    # the softmax with temperature 0.1 is best at a difference of 0.1 log 9
    assert lead[9.0] == pytest.approx(0.1 * np.log(9), abs=0.05)
    assert lead[1 / 9] == pytest.approx(-0.1 * np.log(9), abs=0.05)
