"""Popular labels and nearest titles by TF-IDF, against slow loops."""

from __future__ import annotations

import re
from collections import Counter
from math import log, sqrt

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.baselines.shared import tfidf
from mufin.baselines.shared.popularity import popular
from mufin.ragged import Lists
from mufin.ranking.order import best_first

LABELS = 15


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 6), st.integers(1, 20), st.booleans(), st.integers(0, 10**6)
)
def test_popular_labels_are_those_of_a_count(train, n, k, filters, seed):
    rng = np.random.default_rng(seed)
    lists = [rng.permutation(LABELS)[: rng.integers(0, 5)].tolist() for _ in range(train)]
    excluded = (
        Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 6)] for _ in range(n)])
        if filters
        else None
    )
    labels, scores = popular(Lists.of_rows(lists), LABELS, n, k, excluded)
    count = Counter(label for row in lists for label in row)
    for i in range(n):
        order = sorted(
            (label for label in range(LABELS) if not filters or label not in excluded[i]),
            key=lambda label: (-count[label], label),
        )[:k]
        assert labels[i].tolist() == order + [-1] * (k - len(order))
        assert scores[i].tolist() == [count[label] for label in order] + [-np.inf] * (
            k - len(order)
        )


WORDS = ["oak", "table", "chair", "lamp", "red", "blue", "small", "large", "iron", "x", "2"]


def titles_of(rng, n: int) -> list[str]:
    """Some without a word, some with a word twice, punctuation and capitals."""
    return [
        " - ".join(
            rng.choice([w.title() if rng.random() < 0.3 else w for w in WORDS], rng.integers(0, 6))
        )
        for _ in range(n)
    ]


def words(title: str) -> Counter:
    return Counter(re.findall(r"\w+", title.lower()))


def slow_cosines(documents: list[str], titles: list[str]) -> np.ndarray:
    """(n, documents) cosines of (1 + log tf) (1 + log((1 + N) / (1 + df))), without words that no
    document has."""
    df = Counter(w for d in documents for w in words(d))
    idf = {w: 1 + log((1 + len(documents)) / (1 + count)) for w, count in df.items()}

    def vector(title: str) -> dict[str, float]:
        weights = {w: (1 + log(count)) * idf[w] for w, count in words(title).items() if w in idf}
        norm = sqrt(sum(v * v for v in weights.values()))
        return {w: v / norm for w, v in weights.items()}

    known = [vector(d) for d in documents]
    return np.array(
        [[sum(v * d.get(w, 0) for w, v in vector(t).items()) for d in known] for t in titles]
    )


def check(labels: np.ndarray, scores: np.ndarray, expected: list[dict[int, float]], k: int) -> None:
    """The k best of each row of {label: score}; scores that differ by rounding in any order."""
    for row, values, wanted in zip(labels, scores, expected):
        best = sorted(wanted.values(), reverse=True)[:k]
        there = row[row >= 0].tolist()
        assert len(set(there)) == len(there) == len(best) and (row[len(best) :] == -1).all()
        np.testing.assert_allclose(values[: len(best)], best, atol=1e-4)
        np.testing.assert_allclose([wanted[label] for label in there], best, atol=1e-4)
        assert (values[len(best) :] == -np.inf).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [3, 20])
def test_nearest_titles_vote_as_in_a_loop(seed, k):
    rng = np.random.default_rng(seed)
    train, titles = titles_of(rng, 30), titles_of(rng, 12)
    truth = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 4)] for _ in train])
    excluded = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 4)] for _ in titles])
    labels, scores = tfidf.nearest_datapoints_tfidf(train, truth, titles, LABELS, 6, k, excluded)
    expected = []
    for i, row in enumerate(slow_cosines(train, titles)):
        votes: Counter = Counter()
        for d in sorted(np.flatnonzero(row > 0), key=lambda d, row=row: (-round(row[d], 5), d))[:6]:
            votes.update({int(label): row[d] for label in truth[d] if label not in excluded[i]})
        expected.append(dict(votes))
    check(labels, scores, expected, k)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [3, 40])
def test_nearest_label_titles_are_those_of_a_loop(seed, k):
    rng = np.random.default_rng(seed)
    names, titles = titles_of(rng, 30), titles_of(rng, 12)
    excluded = Lists.of_rows([rng.permutation(30)[: rng.integers(0, 9)] for _ in titles])
    labels, scores = tfidf.tfidf_to_labels(names, titles, k, excluded)
    expected = [
        {j: v for j, v in enumerate(row) if v > 0 and j not in excluded[i]}
        for i, row in enumerate(slow_cosines(names, titles))
    ]
    check(labels, scores, expected, k)


def test_tfidf_in_chunks_is_tfidf_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    names, titles = titles_of(rng, 30), titles_of(rng, 25)
    whole = tfidf.tfidf_to_labels(names, titles, 7)
    monkeypatch.setattr(tfidf, "BUDGET", 100)
    assert all((x == y).all() for x, y in zip(whole, tfidf.tfidf_to_labels(names, titles, 7)))


def zipf_rows(rng, n: int, words: int) -> sp.csr_matrix:
    """n unit vectors with up to eight of `words` words, some of which are in most rows."""
    chance = 1 / np.arange(1, words + 1)
    rows = [rng.choice(words, rng.integers(0, 9), p=chance / chance.sum()) for _ in range(n)]
    dense = np.zeros((n, words), np.float32)
    for row, own in zip(dense, rows):
        row[own] = rng.integers(1, 5, len(own)) * (1 + np.log(1 + own))
    norm = np.linalg.norm(dense, axis=1, keepdims=True)
    return sp.csr_matrix(dense / np.maximum(norm, 1e-12))


@pytest.mark.parametrize("shares", [(), (0.01,), (0.02, 0.2), (0.001, 0.5)])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 5, 60])
def test_rare_words_first_give_the_bits_of_all_products(seed, count, shares, monkeypatch):
    monkeypatch.setattr(tfidf, "SHARES", shares)
    monkeypatch.setattr(tfidf, "BUDGET", 3000)
    rng = np.random.default_rng(seed)
    known, asked = zipf_rows(rng, 400, 90), zipf_rows(rng, 50, 90)
    for start, end in zip(known.indptr, known.indptr[1:]):  # scikit-learn does not sort columns
        known.indices[start:end] = known.indices[start:end][::-1].copy()
        known.data[start:end] = known.data[start:end][::-1].copy()
    known.has_sorted_indices = False
    dense = (asked @ known.T).toarray()
    dense[dense <= 0] = -np.inf
    order = best_first(dense, np.broadcast_to(np.arange(400), dense.shape), count)
    best = np.take_along_axis(dense, order, 1)
    index, product = tfidf.nearest_sparse(known, asked, count)
    assert np.array_equal(product, best)
    assert np.array_equal(index, np.where(best > -np.inf, order, -1))


def test_equal_titles_go_to_the_earlier_row():
    train, truth = ["red lamp"] * 4, Lists.of_rows([[9], [4], [2], [1]])
    labels, _ = tfidf.nearest_datapoints_tfidf(train, truth, ["red lamp"], LABELS, 2, 5)
    assert labels.tolist() == [[4, 9, -1, -1, -1]]  # datapoints 0 and 1, equal votes by id
    assert tfidf.tfidf_to_labels(train, ["lamp"], 3)[0].tolist() == [[0, 1, 2]]


def test_a_title_without_a_known_word_finds_nothing():
    train, truth = ["red lamp", "", "blue chair"], Lists.of_rows([[0], [1], [2]])
    titles = ["", "lamp", "unheard of", "..."]
    for labels, scores in (
        tfidf.nearest_datapoints_tfidf(train, truth, titles, 3, 2, 2),
        tfidf.tfidf_to_labels(train, titles, 2),
    ):
        assert labels.tolist() == [[-1, -1], [0, -1], [-1, -1], [-1, -1]]
        assert (scores[labels < 0] == -np.inf).all()


@pytest.mark.parametrize("documents", [[], ["", "", ""], ["!", "?", " "]])
def test_documents_without_a_word_are_not_found(documents):
    truth = Lists.of_rows([[0]] * len(documents))
    for labels, scores in (
        tfidf.nearest_datapoints_tfidf(documents, truth, ["lamp", ""], 3, 2, 4),
        tfidf.tfidf_to_labels(documents, ["lamp", ""], 4),
    ):
        assert labels.tolist() == [[-1] * 4] * 2 and (scores == -np.inf).all()
    assert tfidf.tfidf_to_labels(["lamp"], [], 4)[0].shape == (0, 4)
