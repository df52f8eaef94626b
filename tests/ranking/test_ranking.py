"""The final order against a slow loop; the mix chosen on valid; popular and TF-IDF baselines against slow loops."""

from __future__ import annotations

import re
from collections import Counter
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.baselines import tfidf
from mufin.baselines.popular import popular
from mufin.errors import MufinError
from mufin.metrics import precision_at_k, recall_at_k
from mufin.ragged import Lists
from mufin.ranking import order as ranking
from mufin.ranking.mix import Mix, choose_mix
from mufin.ranking.order import best_first, rank

LABELS = 15


def quarters(rng, *shape) -> np.ndarray:
    """Few distinct numbers that float32 adds without rounding: many ties."""
    return rng.integers(-4, 5, shape).astype(np.float32) / 4


def problem(n: int, k: int, seed: int):
    rng = np.random.default_rng(seed)
    candidates = (
        np.stack([rng.permutation(LABELS)[:k] for _ in range(n)])
        if n
        else np.zeros((0, k), np.int64)
    )
    candidates[rng.random((n, k)) < 0.2] = -1  # missing anywhere, not at the end alone
    excluded = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 5)] for _ in range(n)])
    return (
        candidates,
        quarters(rng, n, k),
        quarters(rng, n, k),
        excluded,
        quarters(rng, LABELS),
        quarters(rng, n, k),
    )


def slow_rank(candidates, c, a, beta, excluded, frequency, width, ridge):
    labels, scores = [], []
    for i, row in enumerate(candidates.tolist()):
        found = []
        for j, label in enumerate(row):
            if label >= 0 and (excluded is None or label not in excluded[i]):
                score = beta * float(c[i, j]) + (1 - beta) * float(a[i, j])
                score += float(frequency[label]) if frequency is not None else 0
                found.append((-score - (float(ridge[i, j]) if ridge is not None else 0), label))
        found = sorted(found)[:width]
        labels.append([label for _, label in found] + [-1] * (width - len(found)))
        scores.append([-score for score, _ in found] + [-np.inf] * (width - len(found)))
    return labels, scores


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 8),
    st.integers(0, LABELS),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_the_order_is_that_of_a_loop_by_score_then_label_id(
    n, k, width, beta, filters, terms, ridges, seed
):
    candidates, c, a, excluded, frequency, ridge = problem(n, k, seed)
    excluded, frequency = excluded if filters else None, frequency if terms else None
    ridge = ridge if ridges else None
    labels, scores = rank(candidates, c, a, beta, excluded, frequency, width, ridge)
    expected, values = slow_rank(candidates, c, a, beta, excluded, frequency, width, ridge)
    assert (
        labels.dtype == np.int64
        and scores.dtype == np.float32
        and labels.shape == scores.shape == (n, width)
    )
    assert labels.tolist() == expected
    assert scores.tolist() == values


def test_a_ranking_in_chunks_is_the_ranking_at_once(monkeypatch):
    candidates, c, a, excluded, frequency, ridge = problem(40, 10, 3)
    whole = rank(candidates, c, a, 0.5, excluded, frequency, 6, ridge)
    monkeypatch.setattr(ranking, "CHUNK", 70)
    parts = rank(candidates, c, a, 0.5, excluded, frequency, 6, ridge)
    assert all((x == y).all() for x, y in zip(whole, parts))


def test_equal_scores_go_to_the_lower_label_also_at_the_cut():
    labels, scores = rank(
        np.array([[7, 3, 9, 1, 5]]), np.ones((1, 5)), np.ones((1, 5)), 0.5, None, width=3
    )
    assert labels.tolist() == [[1, 3, 5]] and scores.tolist() == [[1, 1, 1]]


def test_a_candidate_of_minus_infinity_counts_as_none_and_what_a_missing_one_scores_is_not_asked():
    c = np.array([[np.nan, -np.inf, 2.0]])
    labels, scores = rank(
        np.array([[-1, 4, 2]]), c, c, 0.5, None, width=3, ridge_term=np.array([[np.nan, 0.0, 1.0]])
    )
    assert labels.tolist() == [[2, -1, -1]]
    assert scores.tolist() == [[3, -np.inf, -np.inf]]


@pytest.mark.parametrize("place", ["classifier", "similarity", "frequency", "ridge"])
def test_a_score_that_is_no_number_is_an_error_in_a_sentence(place):
    values = {n: np.zeros((1, 2)) for n in ("classifier", "similarity", "ridge")} | {
        "frequency": np.zeros(2)
    }
    values[place].flat[1] = np.nan
    with pytest.raises(MufinError, match=r"1 scores are not a number.*train again"):
        rank(
            np.array([[0, 1]]),
            values["classifier"],
            values["similarity"],
            0.5,
            None,
            values["frequency"],
            2,
            values["ridge"],
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 15), st.integers(0, 10**6))
def test_best_first_takes_the_highest_and_of_equals_the_lowest_tie(n, k, width, seed):
    rng = np.random.default_rng(seed)
    score, tie = quarters(rng, n, k), np.stack([rng.permutation(k) for _ in range(n)])
    score[rng.random((n, k)) < 0.2] = -np.inf
    found = best_first(score, tie, width)
    assert found.shape == (n, min(width, k))
    for i in range(n):
        slow = sorted(
            np.flatnonzero(score[i] > -np.inf), key=lambda j, i=i: (-score[i, j], tie[i, j])
        )[:width]
        assert found[i, : len(slow)].tolist() == slow
        assert (score[i, found[i, len(slow) :]] == -np.inf).all()


MIXES = [Mix(b, f, r) for b in (0.0, 0.5, 1.0) for f in (0.0, 0.25) for r in (0.0, 1.0)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10**6))
def test_the_chosen_mix_is_the_first_with_the_best_figures_on_valid(n, k, seed):
    candidates, c, a, excluded, frequency, ridge = problem(n, k, seed)
    rng = np.random.default_rng(seed)
    truth = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 5)] for _ in range(n)])
    best, table = choose_mix(candidates, c, a, truth, excluded, MIXES, frequency, ridge)
    totals = []
    for mix, line in zip(MIXES, table):
        labels = np.array(
            slow_rank(
                candidates,
                c,
                a,
                mix.beta,
                excluded,
                mix.frequency_weight * frequency,
                10,
                mix.ridge_weight * ridge,
            )[0]
        )
        figures = {
            "P@1": precision_at_k(labels, truth, 1, excluded),
            "P@5": precision_at_k(labels, truth, 5, excluded),
            "R@10": recall_at_k(labels, truth, 10, excluded),
        }
        assert [line[m] for m in figures] == pytest.approx(list(figures.values()), abs=1e-4)
        assert Mix(line["beta"], line["frequency_weight"], line["ridge_weight"]) == mix
        totals.append(sum(line[m] for m in figures))
    assert best == MIXES[totals.index(max(totals))]


def test_the_mix_follows_the_part_that_knows_the_truth():
    candidates, truth = np.tile(np.arange(6), (4, 1)), Lists.of_rows([[0], [1], [2], [3]])
    knows = np.eye(4, 6)
    none, flat = Lists.of_rows([[]] * 4), np.zeros(6)
    for c, a, expected in ((knows, -knows, 1.0), (-knows, knows, 0.0), (knows, knows, 0.0)):
        assert choose_mix(candidates, c, a, truth, none, [Mix(0.0), Mix(1.0)], flat)[0] == Mix(
            expected
        )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 6), st.integers(1, 20), st.booleans(), st.integers(0, 10**6)
)
def test_popular_labels_are_those_of_a_count_without_each_datapoints_filter_pairs(
    train, n, k, filters, seed
):
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
    """(n, documents) cosines of (1 + log tf) (1 + log((1 + N) / (1 + df))); words that no document has are unknown."""
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
    """The k best of each row of {label: score}, but for the order of scores that differ by rounding alone."""
    for row, values, wanted in zip(labels, scores, expected):
        best = sorted(wanted.values(), reverse=True)[:k]
        there = row[row >= 0].tolist()
        assert len(set(there)) == len(there) == len(best) and (row[len(best) :] == -1).all()
        np.testing.assert_allclose(values[: len(best)], best, atol=1e-4)
        np.testing.assert_allclose([wanted[label] for label in there], best, atol=1e-4)
        assert (values[len(best) :] == -np.inf).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [3, 20])
def test_nearest_titles_vote_with_their_similarity_as_in_a_loop(seed, k):
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


def test_equal_titles_go_to_the_earlier_datapoint_and_the_lower_label():
    train, truth = ["red lamp"] * 4, Lists.of_rows([[9], [4], [2], [1]])
    labels, _ = tfidf.nearest_datapoints_tfidf(train, truth, ["red lamp"], LABELS, 2, 5)
    assert labels.tolist() == [[4, 9, -1, -1, -1]]  # datapoints 0 and 1, equal votes by id
    assert tfidf.tfidf_to_labels(train, ["lamp"], 3)[0].tolist() == [[0, 1, 2]]


def test_a_title_without_a_known_word_finds_nothing_and_the_others_are_not_touched():
    train, truth = ["red lamp", "", "blue chair"], Lists.of_rows([[0], [1], [2]])
    titles = ["", "lamp", "unheard of", "..."]
    for labels, scores in (
        tfidf.nearest_datapoints_tfidf(train, truth, titles, 3, 2, 2),
        tfidf.tfidf_to_labels(train, titles, 2),
    ):
        assert labels.tolist() == [[-1, -1], [0, -1], [-1, -1], [-1, -1]]
        assert (scores[labels < 0] == -np.inf).all()


@pytest.mark.parametrize("documents", [[], ["", "", ""], ["!", "?", " "]])
def test_where_no_document_has_a_word_nothing_is_found(documents):
    truth = Lists.of_rows([[0]] * len(documents))
    for labels, scores in (
        tfidf.nearest_datapoints_tfidf(documents, truth, ["lamp", ""], 3, 2, 4),
        tfidf.tfidf_to_labels(documents, ["lamp", ""], 4),
    ):
        assert labels.tolist() == [[-1] * 4] * 2 and (scores == -np.inf).all()
    assert tfidf.tfidf_to_labels(["lamp"], [], 4)[0].shape == (0, 4)
