"""The final order of candidates against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking import order
from mufin.ranking.order import best_first, top, top_by

LABELS = 15


def quarters(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Few distinct numbers, so that many are equal."""
    return rng.integers(-4, 5, shape).astype(np.float32) / 4


def problem(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, Lists]:
    """Candidates, some missing anywhere in a row; their scores, some -inf; and filter pairs."""
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(LABELS)[:k] for _ in range(n)], np.int64).reshape(n, k)
    ids[rng.random((n, k)) < 0.2] = -1
    scores = quarters(rng, n, k)
    scores[rng.random((n, k)) < 0.1] = -np.inf
    excluded = Lists.of_rows([rng.permutation(LABELS)[: rng.integers(0, 5)] for _ in range(n)])
    return ids, scores, excluded


def slow_top(
    ids: np.ndarray, scores: np.ndarray, excluded: Lists | None, width: int
) -> tuple[list, list]:
    """Labels and scores of each row, candidate after candidate."""
    labels, values = [], []
    for i in range(len(ids)):
        found = [
            (-float(score), int(label))
            for label, score in zip(ids[i], scores[i])
            if label >= 0
            and score > -np.inf
            and (excluded is None or int(label) not in excluded[i].tolist())
        ]
        found = sorted(found)[:width]
        labels.append([label for _, label in found] + [-1] * (width - len(found)))
        values.append([-score for score, _ in found] + [-np.inf] * (width - len(found)))
    return labels, values


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 8),
    st.integers(0, LABELS),
    st.integers(1, 20),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_top_is_a_loop_by_score_then_label(n, k, width, filters, seed):
    ids, scores, excluded = problem(n, k, seed)
    excluded = excluded if filters else None
    labels, values = top(ids, scores, excluded, width)
    assert labels.dtype == np.int64 and values.dtype == np.float32
    assert labels.shape == values.shape == (n, width)
    assert (labels.tolist(), values.tolist()) == slow_top(ids, scores, excluded, width)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 8), st.integers(1, LABELS), st.integers(1, 20), st.integers(0, 10**6))
def test_top_by_is_top(n, k, width, seed):
    ids, scores, excluded = problem(n, k, seed)
    asked = []

    def scores_of(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return scores[rows].astype(np.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "CHUNK", 3 * k)
        found = top_by(ids, scores_of, excluded, width)
    assert all((x == y).all() for x, y in zip(found, top(ids, scores, excluded, width)))
    assert asked == list(range(n))  # each row once


def test_top_in_chunks_is_top_at_once(monkeypatch):
    ids, scores, excluded = problem(40, 10, 3)
    whole = top(ids, scores, excluded, 6)
    monkeypatch.setattr(order, "CHUNK", 70)
    assert all((x == y).all() for x, y in zip(whole, top(ids, scores, excluded, 6)))


def test_equal_scores_go_to_the_lower_label():
    """Also at the cut."""
    labels, scores = top(np.array([[7, 3, 9, 1, 5]]), np.ones((1, 5)), None, 3)
    assert labels.tolist() == [[1, 3, 5]] and scores.tolist() == [[1, 1, 1]]


def test_scores_are_compared_as_float32():
    scores = np.array([[1.0, 1.0 + 1e-12]])
    assert top(np.array([[4, 9]]), scores, None, 2)[0].tolist() == [[4, 9]]


def test_minus_infinity_counts_as_no_candidate():
    """And what a missing candidate scores is not looked at."""
    labels, scores = top(np.array([[-1, 4, 2]]), np.array([[np.nan, -np.inf, 2.0]]), None, 3)
    assert labels.tolist() == [[2, -1, -1]]
    assert scores.tolist() == [[2, -np.inf, -np.inf]]


def test_a_score_that_is_nan_is_one_sentence():
    scores = np.array([[0.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(MufinError, match=r"1 scores are not a number.*train again$") as error:
        top(np.array([[0, 1], [-1, 3]]), scores, None, 2)
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(1, 12), st.integers(0, 15), st.integers(0, 10**6))
def test_best_first_takes_the_highest_then_lowest_tie(n, k, width, seed):
    rng = np.random.default_rng(seed)
    score = quarters(rng, n, k)
    tie = np.array([rng.permutation(k) for _ in range(n)], np.int64).reshape(n, k)
    score[rng.random((n, k)) < 0.2] = -np.inf
    found = best_first(score, tie, width)
    assert found.shape == (n, min(width, k))
    for i in range(n):
        there = np.flatnonzero(score[i] > -np.inf)
        slow = sorted(there, key=lambda j, i=i: (-score[i, j], tie[i, j]))[:width]
        assert found[i, : len(slow)].tolist() == slow
        assert (score[i, found[i, len(slow) :]] == -np.inf).all()
