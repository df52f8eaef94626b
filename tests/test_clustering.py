"""Balanced 2-means: halves of all rows, of similar rows, the same for dense and sparse."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin import clustering
from mufin.clustering import balanced_halves


def some_rows(n: int, seed: int) -> np.ndarray:
    """(n, 6) rows of norm 1, about half of the numbers 0."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 6)) * (rng.random((n, 6)) < 0.5)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def two_groups(each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows near one of two directions, and which it is, in random order."""
    rng = np.random.default_rng(seed)
    which = rng.permutation(np.repeat([0, 1], each))
    rows = np.eye(2, 8)[which] + 0.1 * rng.normal(size=(2 * each, 8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), which


def slow_halves(rows: np.ndarray, rng: np.random.Generator, rounds: int) -> list[list[int]]:
    """All rounds, row after row, without an early end."""
    n = len(rows)
    first, second = (rows[i] for i in rng.choice(n, 2, replace=False))
    for _ in range(rounds):
        nearer_first = [float(row @ (first - second)) for row in rows]
        order = sorted(range(n), key=lambda i: (nearer_first[i], i))
        far, near = order[: n // 2], order[n // 2 :]
        first, second = (sum(rows[i] for i in part) for part in (near, far))
        first, second = (v / max(np.linalg.norm(v), 1e-12) for v in (first, second))
    return [far, near]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6), st.booleans())
def test_halves_have_all_rows_once_and_like_sizes(n, seed, sparse):
    rows = some_rows(n, seed)
    rows = sp.csr_matrix(rows) if sparse else rows
    first, second = balanced_halves(rows, np.random.default_rng(seed))
    assert sorted([*first, *second]) == list(range(n))
    assert len(second) - len(first) == n % 2


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_sparse_rows_are_halved_as_dense_ones(n, seed):
    rows = some_rows(n, seed)
    dense, sparse = (
        balanced_halves(form, np.random.default_rng(seed)) for form in (rows, sp.csr_matrix(rows))
    )
    assert [part.tolist() for part in dense] == [part.tolist() for part in sparse]


@pytest.mark.parametrize("seed", range(20))
def test_similar_rows_share_a_half(seed):
    rows, which = two_groups(20, seed)
    halves = balanced_halves(rows, np.random.default_rng(seed))
    assert [len(set(which[half])) for half in halves] == [1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6), st.integers(1, 8))
def test_halves_are_those_of_a_slow_loop(n, seed, rounds):
    rows = some_rows(n, seed)
    halves = balanced_halves(rows, np.random.default_rng(seed), rounds)
    slow = slow_halves(rows, np.random.default_rng(seed), rounds)
    assert [half.tolist() for half in halves] == slow


def test_an_early_end_changes_nothing(monkeypatch):
    rows, _ = two_groups(20, 0)
    normalised, unit = [], clustering._unit
    monkeypatch.setattr(clustering, "_unit", lambda v: (normalised.append(v), unit(v))[1])
    halves = balanced_halves(rows, np.random.default_rng(0), rounds=100)
    assert 2 <= len(normalised) < 2 * 100  # two centres per round
    slow = slow_halves(rows, np.random.default_rng(0), 100)
    assert [half.tolist() for half in halves] == slow
