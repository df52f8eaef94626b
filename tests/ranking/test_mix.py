"""The mix of scores against a slow loop, and its choice on valid."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.errors import MufinError
from mufin.metrics import precision_at_k, recall_at_k
from mufin.ragged import Lists
from mufin.ranking import order
from mufin.ranking.mix import Candidates, Mix, best_on_valid, choose_mix, merit, rank

LABELS = 15
WEIGHTS = itertools.product((0.0, 0.5, 1.0), (0.0, 0.25), (0.0, 1.0), (0.0, 0.5))
MIXES = [Mix(*weights) for weights in WEIGHTS]


def quarters(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Few distinct numbers, which floats add without rounding: many ties."""
    return rng.integers(-4, 5, shape).astype(np.float32) / 4


def problem(n: int, k: int, seed: int) -> tuple[Candidates, Lists, np.ndarray]:
    """Candidates, some missing anywhere in a row; filter pairs; frequencies of the labels."""
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(LABELS)[:k] for _ in range(n)], np.int64).reshape(n, k)
    ids[rng.random((n, k)) < 0.2] = -1
    candidates = Candidates(ids, *(quarters(rng, n, k) for _ in range(4)))
    excluded = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 5)] for _ in range(n)])
    return candidates, excluded, quarters(rng, LABELS)


def slow_rank(
    candidates: Candidates, mix: Mix, excluded: Lists | None, frequency, width: int
) -> tuple[list, list]:
    """Labels and mixed scores of each row, candidate after candidate."""
    labels, scores = [], []
    for i, row in enumerate(candidates.ids.tolist()):
        found = []
        for j, label in enumerate(row):
            if label < 0 or (excluded is not None and label in excluded[i].tolist()):
                continue
            score = mix.beta * float(candidates.classifier[i, j])
            score += (1 - mix.beta) * float(candidates.similarity[i, j])
            if frequency is not None:
                score += mix.frequency_weight * float(frequency[label])
            if candidates.ridge is not None:
                score += mix.ridge_weight * float(candidates.ridge[i, j])
            if candidates.votes is not None:
                score += mix.vote_weight * float(candidates.votes[i, j])
            found.append((-score, label))
        found = sorted(found)[:width]
        labels.append([label for _, label in found] + [-1] * (width - len(found)))
        scores.append([-score for score, _ in found] + [-np.inf] * (width - len(found)))
    return labels, scores


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 8),
    st.integers(0, LABELS),
    st.integers(1, 20),
    st.sampled_from(MIXES + [Mix(0.25, -0.5, 0.5)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_the_ranking_is_that_of_a_loop(n, k, width, mix, filters, frequent, ridge, seed):
    candidates, excluded, frequency = problem(n, k, seed)
    excluded, frequency = excluded if filters else None, frequency if frequent else None
    candidates = candidates if ridge else replace(candidates, ridge=None)
    labels, scores = rank(candidates, mix, excluded, frequency, width)
    assert labels.dtype == np.int64 and scores.dtype == np.float32
    assert labels.shape == scores.shape == (n, width)
    expected = slow_rank(candidates, mix, excluded, frequency, width)
    assert (labels.tolist(), scores.tolist()) == expected


def test_a_ranking_in_chunks_is_the_ranking_at_once(monkeypatch):
    candidates, excluded, frequency = problem(40, 10, 3)
    whole = rank(candidates, Mix(0.5, 0.25, 1.0), excluded, frequency, 6)
    monkeypatch.setattr(order, "CHUNK", 70)
    parts = rank(candidates, Mix(0.5, 0.25, 1.0), excluded, frequency, 6)
    assert all((x == y).all() for x, y in zip(whole, parts))


@pytest.mark.parametrize("beta, unused", [(0.0, "classifier"), (1.0, "similarity")])
def test_a_part_of_weight_zero_is_not_read(beta, unused):
    candidates, excluded, _ = problem(5, 8, 1)
    broken = replace(candidates, **{unused: np.full((5, 8), np.nan)})
    whole, parts = (rank(c, Mix(beta), excluded, None, 8) for c in (candidates, broken))
    assert all((x == y).all() for x, y in zip(whole, parts))


def test_scores_of_missing_candidates_are_not_read():
    ids, c = np.array([[-1, 4, 2]]), np.array([[np.nan, -np.inf, 2.0]])
    candidates = Candidates(ids, c, c, np.array([[np.nan, 0.0, 1.0]]))
    labels, scores = rank(candidates, Mix(0.5, 0.0, 1.0), None, None, 3)
    assert labels.tolist() == [[2, -1, -1]] and scores.tolist() == [[3, -np.inf, -np.inf]]


@pytest.mark.parametrize("place", ["classifier", "similarity", "frequency", "ridge"])
def test_a_score_that_is_nan_is_one_sentence(place):
    values = {n: np.zeros((1, 2)) for n in ("classifier", "similarity", "ridge")}
    values["frequency"] = np.zeros(2)
    values[place].flat[1] = np.nan
    frequency = values.pop("frequency")
    candidates = Candidates(np.array([[0, 1]]), **values)
    with pytest.raises(MufinError, match=r"1 scores are not a number.*train again"):
        rank(candidates, Mix(0.5, 1.0, 1.0), None, frequency, 2)


def truth_of(n: int, seed: int) -> Lists:
    rng = np.random.default_rng(seed)
    return Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 5)] for _ in range(n)])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10**6))
def test_the_chosen_mix_is_the_first_best_on_valid(n, k, seed):
    candidates, excluded, frequency = problem(n, k, seed)
    truth = truth_of(n, seed)
    best, table = choose_mix(candidates, truth, excluded, MIXES, frequency)
    totals = []
    for mix, line in zip(MIXES, table, strict=True):
        labels = np.array(slow_rank(candidates, mix, excluded, frequency, 10)[0])
        figures = {
            "P@1": precision_at_k(labels, truth, 1, excluded),
            "P@5": precision_at_k(labels, truth, 5, excluded),
            "R@10": recall_at_k(labels, truth, 10, excluded),
        }
        assert [line[m] for m in figures] == pytest.approx(list(figures.values()), abs=1e-4)
        assert Mix(**{name: line[name] for name in mix.weights()}) == mix
        totals.append(sum(line[m] for m in figures))
    assert best == MIXES[totals.index(max(totals))]


def test_the_mix_follows_the_part_that_knows_the_truth():
    ids, truth = np.tile(np.arange(6), (4, 1)), Lists.of_rows([[0], [1], [2], [3]])
    knows, none = np.eye(4, 6), Lists.of_rows([[]] * 4)
    for c, a, beta in ((knows, -knows, 1.0), (-knows, knows, 0.0), (knows, knows, 0.0)):
        best, _ = choose_mix(Candidates(ids, c, a), truth, none, [Mix(0.0), Mix(1.0)])
        assert best == Mix(beta)


def test_best_on_valid_takes_the_first_of_equals():
    truth, none = Lists.of_rows([[0], [1]]), Lists.of_rows([[], []])
    rankings = {
        "wrong": np.array([[5, 6], [5, 6]]),
        "right": np.array([[0, 5], [1, 6]]),
        "right too": np.array([[0, 6], [1, 5]]),
        "half": np.array([[0, 6], [5, 1]]),
    }
    best, figures = best_on_valid(list(rankings), rankings.get, truth, none)
    assert best == "right"
    assert figures == [merit(labels, truth, none) for labels in rankings.values()]
    assert [row["P@1"] for row in figures] == [0, 100, 100, 50]


def test_merit_leaves_filter_pairs_out():
    labels, truth = np.array([[0, 1]]), Lists.of_rows([[0, 1]])
    figures = merit(labels, truth, Lists.of_rows([[0]]))
    assert figures["P@1"] == precision_at_k(labels, truth, 1, Lists.of_rows([[0]]))
    assert figures != merit(labels, truth, None)
