"""The soft triplet, weighted negatives: loops, closed forms, finite differences; who is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mufin.training import losses
from mufin.training.loop import train
from tests.support.training import machine, pretraining

T = 0.15


def cosines(seed: int, anchors: int = 5, negatives: int = 7) -> tuple[torch.Tensor, ...]:
    """Cosines (A, 2) and (A, N) in float64, and which of them exist."""
    g = torch.Generator().manual_seed(seed)
    p, n = (
        2 * torch.rand(anchors, k, generator=g, dtype=torch.float64) - 1 for k in (2, negatives)
    )
    there, has = torch.rand(p.shape, generator=g) > 0.3, torch.rand(n.shape, generator=g) > 0.4
    has[0] = False  # an anchor without negatives
    there[1] = False  # an anchor without positives
    return p, n, there, has


def slow_soft_triplet(p, n, there, has) -> float:
    total = 0.0
    for a in range(len(p)):
        rivals = [math.exp(float(n[a, j]) / T) for j in range(n.shape[1]) if has[a, j]]
        for i in range(p.shape[1]):
            if there[a, i] and rivals:
                total += math.log(1 + math.exp(math.log(sum(rivals)) - float(p[a, i]) / T))
    return total / len(p)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999))
def test_soft_triplet_equals_the_loop(seed):
    p, n, there, has = cosines(seed)
    found = losses.soft_triplet(p / T, n / T, there, has)
    assert float(found) == pytest.approx(slow_soft_triplet(p, n, there, has), rel=1e-9, abs=1e-12)


def test_soft_triplet_is_cross_entropy_of_a_positive_and_negatives():
    scores = torch.randn(6, 9, dtype=torch.float64)
    there, has = torch.ones(6, 1, dtype=torch.bool), torch.ones(6, 8, dtype=torch.bool)
    found = losses.soft_triplet(scores[:, :1], scores[:, 1:], there, has)
    assert torch.allclose(found, cross_entropy(scores, torch.zeros(6, dtype=torch.long)))


def test_a_positives_gradient_is_the_share_of_the_negatives():
    p = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    n = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    everything = torch.ones(4, 5, dtype=torch.bool)
    losses.soft_triplet(p, n, everything[:, :1], everything).backward()
    share = torch.cat([p, n], 1).detach().softmax(1)[:, 1:]
    assert torch.allclose(n.grad, share / 4) and torch.allclose(p.grad[:, 0], -share.sum(1) / 4)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_gradients_of_triplets_are_those_of_finite_differences(temperature):
    p, n, there, has = cosines(3)
    p.requires_grad_(), n.requires_grad_()
    if temperature is None:
        assert torch.autograd.gradcheck(
            lambda p, n: losses.soft_triplet(p / T, n / T, there, has), (p, n)
        )
    assert torch.autograd.gradcheck(
        lambda p, n: losses.triplet(p, n, there, has, 0.3, temperature), (p, n)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-4])
def test_gradients_are_finite_at_any_temperature(dtype, scale):
    p, n, there, has = cosines(1)
    p, n = (x.to(dtype).mul(scale).requires_grad_() for x in (p, n))
    loss = losses.soft_triplet(p, n, there, has) + losses.triplet(p, n, there, has, 0.3, 0.1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(p.grad).all() and torch.isfinite(n.grad).all()
    assert not n.grad[~has].any() and not p.grad[~there].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999))
def test_weighted_triplets_equal_the_loop(seed):
    p, n, there, has = cosines(seed)
    total = 0.0
    for a in range(len(p)):
        rivals = [j for j in range(n.shape[1]) if has[a, j]]
        weights = {j: math.exp(float(n[a, j]) / 0.1) for j in rivals}
        for i in range(2):
            for j in rivals:
                gap = max(0.0, float(n[a, j] - p[a, i]) + 0.3)
                total += float(there[a, i]) * gap * weights[j] / sum(weights.values())
    found = losses.triplet(p, n, there, has, 0.3, 0.1)
    assert float(found) == pytest.approx(float(total) / len(p), rel=1e-9, abs=1e-12)


def test_equally_near_negatives_have_equal_weights():
    p, there = torch.zeros(3, 1), torch.ones(3, 1, dtype=torch.bool)
    n, has = torch.full((3, 4), 0.5), torch.ones(3, 4, dtype=torch.bool)
    plain, weighted = (losses.triplet(p, n, there, has, 0.2, t) for t in (None, 0.1))
    assert float(weighted) == pytest.approx(float(plain) / 4)


# Jobs


def of_step(tmp_path, **changes):
    """A step of Module I and its scores, relevance and loss; nothing is dropped out."""
    job, _ = pretraining(machine(tmp_path / "a"), 0.0, **changes)
    step = job.prepare(job.plan(0)[0], np.random.default_rng(0))
    with torch.no_grad():
        vectors = job.model.vector(job.model.bag(step.batch))
        scores = vectors[step.anchor] @ vectors[step.other].T
        return job, step, vectors, scores, float(job.loss(step))


def test_soft_triplets_have_all_irrelevant_others_as_negatives(tmp_path):
    job, step, _, scores, loss = of_step(tmp_path, loss="soft_triplet", temperature=T, negatives=1)
    total = 0.0
    for a in range(len(scores)):
        rivals = [s for s, r in zip(scores[a], step.relevant[a]) if not r]
        for i, there in zip(step.positive[a], step.positive_mask[a]):
            if there and rivals:
                hardest = torch.logsumexp(torch.stack(rivals) / T, 0)
                total += math.log(1 + math.exp(float(hardest - scores[a, i] / T)))
    assert loss == pytest.approx(total / len(scores), rel=1e-5)


def test_filter_pairs_are_no_negatives_of_soft_triplets(tmp_path):
    job, step, _, scores, loss = of_step(tmp_path, loss="soft_triplet", temperature=T)
    row, column = map(int, (~step.relevant).nonzero()[0])
    step.allowed[row, column] = False
    with torch.no_grad():
        without = float(job.loss(step))
        step.allowed[:] = False
        assert without < loss and float(job.loss(step)) == 0.0


def test_random_negatives_are_as_many_as_asked_for(tmp_path):
    changes = {"loss": "soft_triplet", "temperature": 1.0, "hard_negatives": False}
    job, step, _, scores, _ = of_step(tmp_path, negatives=1, **changes)
    torch.manual_seed(0)
    draws = torch.stack([job.loss(step).detach() for _ in range(50)])
    job.settings.hard_negatives = True
    assert len(draws.unique()) > 1 and (draws < job.loss(step)).all()


def test_soft_triplets_draw_the_same_positives_as_triplets(tmp_path):
    def drawn(loss: str) -> torch.Tensor:
        job, _ = pretraining(machine(tmp_path / loss, 1e9), loss=loss, positive_threshold=0.0)
        job.begin_epoch(1)
        assert job.eligible is not None and not job.eligible.all()
        step = job.prepare(job.plan(1)[0], np.random.default_rng(0))
        return torch.stack([step.positive, step.positive_mask.long()])

    assert drawn("soft_triplet").equal(drawn("triplet"))


@pytest.mark.parametrize("batching, rows", [("datapoint_clusters", 40), ("clusters", 24)])
def test_clusters_are_of_the_anchors_after_random_epochs(batching, rows, tmp_path):
    job, optimisers = pretraining(
        machine(tmp_path / "a", 1e9), batching=batching, hard_positives=False, random_epochs=2
    )
    random, begin = (
        pretraining(
            machine(tmp_path / "b"),
            batching={"clusters": "labels", "datapoint_clusters": "datapoints"}[batching],
            random_epochs=2,
        )[0],
        job.begin_epoch,
    )
    seen = {}

    def noted(epoch: int) -> None:
        begin(epoch)
        seen[epoch] = job.plan(epoch)

    job.begin_epoch = noted
    train(job, optimisers, 3, 0, machine(tmp_path / "a", 1e9))
    assert len(job.anchors) == rows
    for epoch, batches in seen.items():
        assert sorted(np.concatenate(batches)) == sorted(job.usable)
        same = all(map(np.array_equal, batches, random.plan(epoch)))
        assert same == (epoch < 2)
    vectors = job._vectors(job.anchors)

    def nearness(batches) -> float:
        blocks = [vectors[batch] @ vectors[batch].T for batch in batches]
        return float(np.mean([block.mean() for block in blocks]))

    job.cluster = job._clusters(vectors, 9)
    assert nearness(job.plan(9)) > nearness(random.plan(9))
