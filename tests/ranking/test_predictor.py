"""Prediction by steps, each against a slow form: embed, retrieve, score, candidates."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.embedding import embed_members, joint_rows, joint_vectors, unit_rows
from mufin.ragged import Lists
from mufin.ranking.predictor import Predictor
from tests.support.bags import GivenStore
from tests.support.indexes import (
    CPU,
    LABEL_PRODUCTS,
    LABELS,
    PRODUCTS,
    TITLES,
    WIDTH,
    label_index,
    networks,
    store,
)

ASKED = np.array([3, 29, 0, 3, 14])  # every third product has no picture


@pytest.fixture(scope="module", params=[False, True], ids=["no ridge", "ridge"])
def predictor(request) -> Predictor:
    members = networks()
    return Predictor(
        members, store(), label_index(members, ridge=request.param), CPU, torch.float32
    )


def filter_pairs(n: int) -> Lists:
    rng = np.random.default_rng(2)
    return Lists.of_rows([np.sort(rng.permutation(LABELS)[:3]) for _ in range(n)])


def slow_scores(predictor: Predictor, products: np.ndarray, alpha_one: bool) -> np.ndarray:
    """(n, L) the mean over the networks of <w_l, x^{2,l}>, one pair after the other."""
    out = np.zeros((len(products), LABELS))
    with torch.no_grad():
        for network in predictor.networks:
            z = network.bag(store().batch(LABEL_PRODUCTS))
            w = network.vector(z)
            if not alpha_one:
                w = network.classifier(torch.arange(LABELS), w)
            for i, product in enumerate(products):
                x = network.bag(store().batch(np.array([product])))
                for label in range(LABELS):
                    pair = network.adapted(x, z[label : label + 1])[0] @ w[label]
                    out[i, label] += float(pair) / len(predictor.networks)
    return out


def slow_similarity(predictor: Predictor, products: np.ndarray) -> np.ndarray:
    """(n, L) the largest cosine of a datapoint with a label's bag rows and centroid."""
    index = predictor.index
    x = joint_vectors(embed_members(predictor.networks, store(), products, CPU, torch.float32))
    rows, mu, offsets = (
        joint_rows(index.labels),
        unit_rows(index.centroids),
        index.labels[0].offsets,
    )
    out = np.zeros((len(products), LABELS))
    for label in range(LABELS):
        own = np.concatenate([rows[offsets[label] : offsets[label + 1]], mu[label : label + 1]])
        out[:, label] = (x @ own.T).max(1)
    return out


def test_embed_gives_each_networks_vectors(predictor):
    ours = predictor.embed(ASKED)
    theirs = embed_members(predictor.networks, store(), ASKED, CPU, torch.float32)
    assert len(ours) == 2 and not np.allclose(ours[0].vectors, ours[1].vectors)
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.vectors, b.vectors) and np.array_equal(a.rows, b.rows)


@pytest.mark.parametrize("modality", [TEXT, IMAGE])
def test_embed_leaves_other_modalities_out(predictor, modality):
    for embedded in predictor.embed(ASKED, {modality}):
        assert set(embedded.modality) == {modality}
        pictures = (ASKED % 3 > 0).astype(int)
        assert np.diff(embedded.offsets).tolist() == (
            [1] * len(ASKED) if modality == TEXT else pictures.tolist()
        )


def test_embed_takes_products_of_another_store(predictor):
    other = GivenStore(4, WIDTH, seed=7)
    ours = predictor.embed(np.arange(4), store=other)
    theirs = embed_members(predictor.networks, other, np.arange(4), CPU, torch.float32)
    assert all(np.array_equal(a.vectors, b.vectors) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("filters", [False, True])
@pytest.mark.parametrize("k", [4, LABELS + 5])
def test_retrieve_finds_the_labels_of_a_loop(predictor, k, filters):
    excluded = filter_pairs(len(ASKED)) if filters else None
    ids, similarity = predictor.retrieve(predictor.embed(ASKED), k, excluded)
    assert ids.shape == similarity.shape == (len(ASKED), min(k, LABELS))
    slow = slow_similarity(predictor, ASKED)
    if excluded is not None:
        slow[excluded.rows(), excluded.values] = -np.inf
    order = np.argsort(-slow, axis=1)[:, : ids.shape[1]]
    best = np.take_along_axis(slow, order, 1)
    assert np.array_equal(ids, np.where(np.isinf(best), -1, order))
    assert np.allclose(similarity, best, atol=1e-6)


@pytest.mark.parametrize("alpha_one", [False, True])
def test_scores_are_the_mean_of_the_networks(predictor, alpha_one):
    rng = np.random.default_rng(1)
    ids = np.stack([rng.permutation(LABELS)[:2] for _ in ASKED])
    ours = predictor.score(predictor.embed(ASKED), ids, alpha_one)
    slow = np.take_along_axis(slow_scores(predictor, ASKED, alpha_one), ids, 1)
    assert ours.dtype == np.float32 and np.allclose(ours, slow, atol=1e-5)


def test_alpha_one_scores_differ_from_the_classifiers(predictor):
    datapoints, ids = predictor.embed(ASKED), np.tile(np.arange(LABELS), (len(ASKED), 1))
    both = (predictor.score(datapoints, ids, alpha_one) for alpha_one in (False, True))
    assert not np.allclose(*both, atol=0.01)


def test_candidates_are_retrieved_labels_with_all_scores(predictor):
    excluded, titles = filter_pairs(len(ASKED)), [TITLES[p] for p in ASKED]
    datapoints = predictor.embed(ASKED)
    found = predictor.candidates(datapoints, LABELS, excluded, titles)
    ids, similarity = predictor.retrieve(datapoints, LABELS, excluded)
    assert np.array_equal(found.ids, ids) and (ids < 0).any()
    assert np.array_equal(found.similarity, similarity)
    assert np.array_equal(found.classifier, predictor.score(datapoints, ids))
    if predictor.index.ridge is None:
        assert found.ridge is None
        return
    there = ids >= 0
    scores = np.take_along_axis(predictor.index.ridge.scores(titles), np.maximum(ids, 0), 1)
    assert np.array_equal(found.ridge[there], scores[there])


def test_candidates_have_votes_where_the_index_has_voters():
    members = networks()
    predictor = Predictor(members, store(), label_index(members, votes=True), CPU, torch.float32)
    datapoints = predictor.embed(ASKED)
    found = predictor.candidates(datapoints, LABELS, None)
    vectors = joint_vectors(datapoints)
    assert np.array_equal(found.votes, predictor.index.votes.scores(vectors, found.ids))
    known = predictor.candidates(datapoints, LABELS, None, products=ASKED)
    assert np.array_equal(known.votes, predictor.index.votes.scores(vectors, found.ids, ASKED))
    assert not np.array_equal(known.votes, found.votes)  # all products are train datapoints


def test_candidates_without_titles_have_no_ridge(predictor):
    assert predictor.candidates(predictor.embed(ASKED), 4, None).ridge is None


def test_label_sides_are_made_once_and_held_one_at_a_time(predictor):
    datapoints, ids = predictor.embed(ASKED), np.tile(np.arange(3), (len(ASKED), 1))
    predictor.score(datapoints, ids)
    sides = predictor._sides(False)
    predictor.score(datapoints, ids)
    assert predictor._sides(False) is sides and len(predictor.index) == LABELS < PRODUCTS
    predictor.score(datapoints, ids, alpha_one=True)
    assert list(predictor._held) == [True]


def test_what_is_released_is_made_again_and_gives_the_same(predictor):
    datapoints = predictor.embed(ASKED)
    before = predictor.candidates(datapoints, LABELS, None)
    sides = weakref.ref(predictor._sides(False).held[0].w)
    rows = weakref.ref(predictor.index.neighbours.arranged().rows)
    predictor.release()
    assert sides() is None and rows() is None
    after = predictor.candidates(datapoints, LABELS, None)
    for name in ("ids", "classifier", "similarity"):
        assert getattr(after, name).tobytes() == getattr(before, name).tobytes()
