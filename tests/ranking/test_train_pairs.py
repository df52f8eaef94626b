"""What training says about a product: the strengths of its own pairs, as a term of the score."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mufin.artifacts.curated import Split
from mufin.ragged import Lists
from mufin.ranking.mix import Candidates, Mix, choose_mix, rank
from mufin.ranking.train_pairs import TrainPairs

LABELS = 7


def split(products: list[int], rows: list[list[int]], weights: list[float] | None) -> Split:
    none = Lists(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int32))
    strength = None if weights is None else np.array(weights, np.float32)
    return Split(np.array(products, np.int64), Lists.of_rows(rows, np.int32), none, strength)


@st.composite
def trains(draw) -> Split:
    products = draw(st.lists(st.integers(0, 9), unique=True, max_size=6))
    labels = st.lists(st.integers(0, LABELS - 1), unique=True, max_size=4)
    rows = [draw(labels) for _ in products]
    count = sum(map(len, rows))
    one = st.floats(0.125, 8, width=32)
    weights = draw(st.none() | st.lists(one, min_size=count, max_size=count))
    return split(products, rows, weights)


@given(
    trains(),
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.integers(0, 3),
)
def test_strengths_equal_those_of_a_slow_loop(train, asked, seed):
    ids = np.random.default_rng(seed).integers(-1, LABELS, size=(len(asked), 4))
    found = TrainPairs(train, LABELS).of(np.array(asked), ids)
    weights = np.ones(len(train.labels.values)) if train.weights is None else train.weights
    for i, product in enumerate(asked):
        own = {}
        for row in np.flatnonzero(train.product == product):
            part = slice(train.labels.offsets[row], train.labels.offsets[row + 1])
            own = dict(zip(train.labels.values[part].tolist(), weights[part].tolist()))
        for j, label in enumerate(ids[i].tolist()):
            wanted = own.get(label, 0.0) / max(own.values(), default=1.0)
            np.testing.assert_allclose(found[i, j], wanted, rtol=1e-6)


def test_only_train_datapoints_are_known():
    pairs = TrainPairs(split([4, 2], [[1], [0, 3]], None), LABELS)
    assert pairs.known(np.array([1, 2, 3, 4])).tolist() == [False, True, False, True]


def test_without_train_pairs_all_strengths_are_zero():
    assert not TrainPairs(split([], [], None), LABELS).of(np.array([0]), np.array([[1, -1]])).any()


def candidates(pairs: np.ndarray) -> Candidates:
    ids = np.tile(np.arange(3), (2, 1))
    scores = np.array([[0.3, 0.2, 0.1]] * 2)
    return Candidates(ids, scores, scores, pairs=pairs)


def test_a_pair_of_train_comes_first_by_its_weight():
    some = candidates(np.array([[0, 0, 1.0], [0, 0, 0]], np.float32))
    labels, scores = rank(some, Mix(1.0, pair_weight=0.5), None, None, 3)
    assert labels.tolist() == [[2, 0, 1], [0, 1, 2]]
    np.testing.assert_allclose(scores[0], [0.6, 0.3, 0.2], rtol=1e-6)


def test_valid_chooses_a_weight_where_pairs_repeat():
    truth = Lists.of_rows([[2], [0]], np.int32)
    none = Lists(np.zeros(3, np.int64), np.zeros(0, np.int32))
    mixes = [Mix(1.0, pair_weight=weight) for weight in (0.0, 0.5)]
    pairs = np.array([[0, 0, 1.0], [0, 0, 0]], np.float32)
    assert choose_mix(candidates(pairs), truth, none, mixes)[0].pair_weight == 0.5
    assert choose_mix(candidates(0 * pairs), truth, none, mixes)[0].pair_weight == 0.0
