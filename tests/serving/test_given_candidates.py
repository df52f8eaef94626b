"""Given candidates are ranked by their own vectors, labels or not."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mufin.serving.query import QueryError
from mufin.serving.recommender import Recommender

BETA = 0.4


@pytest.fixture(scope="module")
def served(finished) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        patch.setenv("MUFIN_WORKERS", "1")
        return Recommender.load(finished)


@pytest.fixture(scope="module")
def unseen(finished, served) -> list[str]:
    """Products that are no labels."""
    path = finished / "data/curated/unseen/labels.parquet"
    return [served.model.uids[p] for p in pq.read_table(path)["product"].to_pylist()[:4]]


def exact(served: Recommender, asked: str, answer: str) -> float:
    """beta <w, x^2> + (1 - beta) <z, x^1> of a pair of products, the mean over the members."""
    predictor, total = served.model.predictor, 0.0
    store, rows = predictor.store, [served.model.row_of[uid] for uid in (asked, answer)]
    with torch.no_grad():
        for network in predictor.networks:
            x, z = (network.bag(store.batch(np.array([row]))) for row in rows)
            vector = network.vector(z)
            w = network.unseen_classifier(vector)[0]
            total += BETA * float(network.adapted(x, z)[0] @ w)
            total += (1 - BETA) * float(network.vector(x)[0] @ vector[0])
    return total / len(predictor.networks)


def test_any_products_are_ranked_by_exact_products(served, unseen):
    labels = [served.catalog.uid(label) for label in range(3)]
    candidates = [labels[0], unseen[1], labels[1], unseen[2], labels[2]]
    answers = served.rank(candidates, unseen[0], mix={"beta": BETA})
    assert {answer.uid for answer in answers} == set(candidates)
    for answer in answers:
        assert answer.score == pytest.approx(exact(served, unseen[0], answer.uid), abs=1e-4)
        assert answer.score == pytest.approx(sum(answer.parts.values()))
    scores = [answer.score for answer in answers]
    assert scores == sorted(scores, reverse=True)


def test_a_basket_is_the_mean_of_its_products(served, unseen):
    both = {a.uid: a.score for a in served.rank(unseen[2:], unseen[:2], mix={"beta": BETA})}
    for uid in unseen[2:]:
        mean = np.mean([exact(served, asked, uid) for asked in unseen[:2]])
        assert both[uid] == pytest.approx(mean, abs=1e-4)


def test_a_new_product_can_be_asked_about(served, unseen):
    answers = served.rank(unseen, title="red mug", texts=["a teapot"])
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)


def test_candidates_must_be_products_of_the_catalog(served, unseen):
    with pytest.raises(QueryError, match="candidates is empty"):
        served.rank([], unseen[0])
    with pytest.raises(QueryError, match="nothing is not a product of the catalog"):
        served.rank(["nothing"], unseen[0])
    with pytest.raises(QueryError, match="no product is given"):
        served.rank(unseen)
