"""Votes of the nearest train datapoints: against a slow loop and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from mufin.ragged import Lists
from mufin.ranking import neighbour_votes
from mufin.ranking.neighbour_votes import NeighbourVotes, shares
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours

LABELS, DIM = 6, 5


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def voting(
    vectors: np.ndarray,
    labels: Lists,
    products: np.ndarray,
    count: int = 4,
    temperature: float = 0.1,
    search: str = "exact",
) -> NeighbourVotes:
    rows = LabelRows(vectors, np.arange(len(vectors)), len(vectors))
    found = build_neighbours(rows, search, device=torch.device("cpu"))
    return NeighbourVotes(found, products, labels, count, temperature)


def slow(votes: NeighbourVotes, queries: np.ndarray, ids: np.ndarray, products) -> np.ndarray:
    """The votes, query after query and datapoint after datapoint."""
    out = np.zeros(ids.shape)
    vectors = votes.search.source.rows
    for i, query in enumerate(queries):
        others = [
            j for j in range(len(vectors)) if products is None or votes.products[j] != products[i]
        ]
        cosines = {j: float(query @ vectors[j]) for j in others}
        near = sorted(others, key=lambda j: (-cosines[j], j))[: votes.count]
        weights = {j: np.exp(cosines[j] / votes.temperature) for j in near}
        for k, label in enumerate(ids[i].tolist()):
            voices = sum(weights[j] for j in near if label in votes.labels[j].tolist())
            out[i, k] = voices / sum(weights.values()) if near else 0
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.integers(1, 6), st.booleans(), st.booleans(), st.integers(0, 9999))
def test_votes_equal_those_of_a_slow_loop(n, asked, known, chunks, seed):
    rng = np.random.default_rng(seed)
    labels = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 4)] for _ in range(n)])
    votes = voting(unit(rng, n), labels, rng.integers(0, 5, n))
    queries, ids = unit(rng, asked), rng.integers(-1, LABELS + 2, (asked, 7))
    products = rng.integers(0, 7, asked) if known else None
    with pytest.MonkeyPatch.context() as patch:
        if chunks:
            patch.setattr(neighbour_votes, "BUDGET", 1)
        found = votes.scores(queries, ids, products)
    assert found.dtype == np.float32 and not found[ids < 0].any()
    np.testing.assert_allclose(found, slow(votes, queries, ids, products), atol=1e-6)


def test_votes_for_one_label_are_the_probabilities_of_scikit_learn():
    rng = np.random.default_rng(1)
    vectors, queries, truth = unit(rng, 60), unit(rng, 20), rng.integers(0, LABELS, 60)
    votes = voting(vectors, Lists(np.arange(61), truth), np.arange(60), 15, 0.2)
    theirs = KNeighborsClassifier(
        15,
        # between unit vectors: cosine = 1 - distance^2 / 2
        weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.2),
        algorithm="brute",
    ).fit(vectors, truth)
    ids = np.tile(theirs.classes_, (20, 1))
    np.testing.assert_allclose(votes.scores(queries, ids), theirs.predict_proba(queries), atol=1e-5)


def test_a_small_temperature_leaves_the_labels_of_the_nearest():
    rng = np.random.default_rng(2)
    labels = Lists.of_rows([[0], [1, 2], [3]])
    vectors = unit(rng, 3)
    found = voting(vectors, labels, np.arange(3), 3, 1e-4).scores(
        vectors, np.tile([0, 1, 2, 3], (3, 1))
    )
    np.testing.assert_allclose(found, [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], atol=1e-6)


def test_hnsw_finds_the_same_voters():
    """Also where several datapoints are one product, which does not vote for itself."""
    rng = np.random.default_rng(3)
    labels = Lists.of_rows([rng.permutation(LABELS)[:2] for _ in range(300)])
    vectors, queries, ids = unit(rng, 300), unit(rng, 30), np.tile(np.arange(LABELS), (30, 1))
    products, asked = rng.integers(0, 90, 300), rng.integers(0, 95, 30)
    for known in (None, asked):
        exact, hnsw = (
            voting(vectors, labels, products, 10, search=kind).scores(queries, ids, known)
            for kind in ("exact", "hnsw")
        )
        np.testing.assert_allclose(hnsw, exact, atol=1e-5)
        np.testing.assert_allclose(
            exact, slow(voting(vectors, labels, products, 10), queries, ids, known), atol=1e-5
        )


def test_datapoints_without_a_row_do_not_vote():
    rng = np.random.default_rng(5)
    labels = Lists.of_rows([[0], [1], [2], [3]])
    rows = LabelRows(unit(rng, 2), np.array([1, 3]), 4)
    search = build_neighbours(rows, "exact", device=torch.device("cpu"))
    votes = NeighbourVotes(search, np.arange(4), labels, 4, 1.0)
    found = votes.scores(rows.rows, np.tile(np.arange(4), (2, 1)))
    assert not found[:, [0, 2]].any()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_shares_of_nobody_are_zero():
    assert shares(np.array([[-np.inf, -np.inf], [0.5, -np.inf]]), 0.1).tolist() == [[0, 0], [0, 0]][
        :1
    ] + [[1, 0]]
    assert shares(np.zeros((2, 0)), 0.1).shape == (2, 0)


def test_nothing_to_vote_for_gives_zeros():
    rng, none = np.random.default_rng(4), np.zeros(0, np.int64)
    nobody = voting(unit(rng, 0), Lists(np.zeros(1, np.int64), none), none)
    assert nobody.scores(unit(rng, 2), np.array([[0, 1], [2, -1]])).tolist() == [[0, 0], [0, 0]]
    unlabelled = voting(unit(rng, 2), Lists(np.zeros(3, np.int64), none), np.arange(2))
    assert not unlabelled.scores(unit(rng, 1), np.array([[0]])).any()
    assert unlabelled.scores(unit(rng, 0), np.zeros((0, 3), np.int64)).shape == (0, 3)
    labelled = voting(unit(rng, 2), Lists.of_rows([[0], [1]]), np.arange(2))
    assert labelled.scores(unit(rng, 2), np.zeros((2, 0), np.int64)).shape == (2, 0)
