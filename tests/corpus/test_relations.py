"""Weights of relations: what several columns, several rows and baskets say of one pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.corpus.relations import (
    Relations,
    gathered,
    no_relations,
    of_scores,
    summed,
    united,
)
from mufin.ragged import Lists

PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda p: p[0] != p[1]),
    st.floats(0.125, 8, width=32),
    max_size=12,
)


def made(pairs: dict) -> Relations:
    """Relations of 7 products from {(source, target): weight}."""
    source, target = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
    return gathered(source, target, np.array(list(pairs.values()), np.float32), 7)[0]


def pairs_of(relations: Relations) -> dict:
    weights = relations.weights
    if weights is None:
        weights = np.ones(len(relations.lists.values))
    return dict(
        zip(zip(relations.lists.rows().tolist(), relations.lists.values.tolist()), weights.tolist())
    )


@settings(max_examples=50, deadline=None)
@given(PAIRS, PAIRS, st.integers(1, 9))
def test_a_pair_of_both_sources_has_the_sum(a, b, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mufin.corpus.relations.PRODUCTS", at_once)
        joined = united(made(a), made(b))
    found = pairs_of(joined)
    assert len(joined) == 7 and list(found) == sorted(found)
    assert found.keys() == a.keys() | b.keys()
    for pair, weight in found.items():
        assert weight == pytest.approx(a.get(pair, 0) + b.get(pair, 0), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_weights_follow_their_pairs_into_a_subset(pairs):
    relations, keep = made(pairs), np.array([1, 2, 5])
    position = np.full(7, -1)
    position[keep] = np.arange(3)
    found = pairs_of(relations.restricted(keep, position))
    inside = {p: w for p, w in pairs.items() if {*p} <= {1, 2, 5}}
    assert found == {(position[a], position[b]): w for (a, b), w in inside.items()}


def test_of_repeated_pairs_the_largest_weight_counts():
    source, target = np.array([0, 0, 1, 0, 2]), np.array([1, 1, 0, 2, 2])
    relations, dropped = gathered(source, target, np.float32([1, 3, 2, 5, 9]), 3)
    assert pairs_of(relations) == {(0, 1): 3, (0, 2): 5, (1, 0): 2}
    assert dropped == {"self relations": 1, "repeated relations": 1}


def test_columns_of_one_row_add_up():
    row, target, weight = summed(
        np.array([3, 3, 3, 8]), np.array([5, 2, 5, 5]), np.float32([1, 1, 0.25, 1])
    )
    assert list(zip(row, target, weight)) == [(3, 2, 1), (3, 5, 1.25), (8, 5, 1)]


def test_the_strongest_pair_of_each_product_has_weight_one():
    lists = Lists.of_rows([[1, 2, 4], [], [0], []])
    relations = of_scores(lists, np.float32([0.25, 1e-3, 0.5, 700]))
    assert pairs_of(relations) == {
        (0, 1): 0.5,
        (0, 2): pytest.approx(0.002),
        (0, 4): 1,
        (2, 0): 1,
    }


def test_equal_weights_are_no_weights():
    relations = made({(0, 1): 2.0, (1, 0): 2.0, (2, 3): 1.0})
    assert relations.of_pairs(np.array([0, 1]), np.array([1, 0])) is None
    assert relations.of_pairs(np.array([2, 0]), np.array([3, 1])).tolist() == [1, 2]
    assert relations.of_pairs(np.zeros(0, int), np.zeros(0, int)) is None
    assert no_relations(3).of_pairs(np.zeros(0, int), np.zeros(0, int)) is None
