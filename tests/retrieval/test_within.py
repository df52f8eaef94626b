"""Searches among allowed labels: exact and HNSW against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.ragged import Lists
from mufin.retrieval import hnsw as hnsw_module
from mufin.retrieval import within as within_module
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.retrieval.within import search_within
from tests.retrieval.test_search import CPU, clustered, problem, slow_search


def slow_within(rows: LabelRows, queries, k: int, excluded: Lists, allowed: np.ndarray):
    """The slow search over rows whose other labels are removed."""
    return slow_search(rows.without(np.flatnonzero(~allowed)), queries, k, excluded)


SIZES = dict(
    rows=st.integers(0, 40),
    labels=st.integers(1, 12),
    n=st.integers(1, 5),
    k=st.integers(1, 14),
    seed=st.integers(0, 999),
)


@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_exact_search_among_allowed_is_a_loop(rows, labels, n, k, seed):
    source, queries, excluded = problem(rows, labels, n, seed)
    allowed = np.random.default_rng(seed).random(labels) < 0.5
    k = min(k, labels)
    wanted = slow_within(source, queries, k, excluded, allowed)
    search = ExactNeighbours(source, CPU)
    for found in (
        search.search(queries, k, excluded, allowed),
        search_within(source, queries, k, excluded, allowed),
    ):
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])


def test_search_within_in_parts_is_that_at_once(monkeypatch):
    source, queries, excluded = problem(400, 30, 7, seed=3)
    allowed = np.arange(30) % 3 > 0
    whole = search_within(source, queries, 9, excluded, allowed)
    monkeypatch.setattr(within_module, "NUMBERS", 40)
    parts = search_within(source, queries, 9, excluded, allowed)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_hnsw_finds_k_whenever_k_are_allowed(rows, labels, n, k, seed):
    source, queries, excluded = problem(rows, labels, n, seed)
    allowed = np.random.default_rng(seed).random(labels) < 0.7
    found, similarity = HnswNeighbours(source, 4, 20, 20).search(queries, k, excluded, allowed)
    present = np.unique(source.label[source.label >= 0])
    for row in range(n):
        mine = excluded[row]
        possible = set(present[allowed[present]].tolist()) - set(mine.tolist())
        got = found[row][found[row] >= 0].tolist()
        assert len(got) == min(k, len(possible)) and set(got) <= possible
        assert (similarity[row] > -np.inf).sum() == len(got)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_hnsw_among_allowed_is_near_to_exact(monkeypatch, share):
    monkeypatch.setattr(hnsw_module, "WIDEST", 8)
    source, queries = clustered(800, 4, 16)
    allowed = np.random.default_rng(0).random(800) < share
    wanted = ExactNeighbours(source, CPU).search(queries, 10, None, allowed)[0]
    found = HnswNeighbours(source, 16, 100, 200).search(queries, 10, None, allowed)[0]
    hits = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), wanted.tolist())]
    assert np.mean(hits) > 0.97
