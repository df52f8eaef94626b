"""Folds of train against slow loops: nothing that is left out reaches the training of its fold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.curated import Curated, Split
from mufin.corpus.folds import draw_folds, fold_of
from mufin.corpus.splits import cold_split, released_split, time_split, warm_split
from mufin.errors import MufinError
from mufin.ragged import Lists
from tests.corpus.test_splits import graph

KINDS = ("cold", "warm", "time", "released")


def curated(n: int, degree: int, kind: str, seed: int, weighted: bool = False) -> Curated:
    """A catalog of n products, split as `kind` says, without test."""
    relations, rng = graph(n, degree, seed, mutual=seed % 2 == 0), np.random.default_rng(seed)
    if kind == "time":
        made = time_split({name: relations for name in ("train", "valid", "test")})
    elif kind == "released":
        labels, nobody = np.arange(n)[::-1].copy(), np.zeros(0, np.int64)
        own = Lists(np.arange(n + 1), np.arange(n)[::-1].copy())
        every = Split(np.arange(n), relations, own)
        made = released_split(labels, every, every.take(nobody), 0.0, rng)
    else:
        split = cold_split if kind == "cold" else warm_split
        made = split(relations, 0.0, 0.0, rng)
    train = made.rows["train"]
    if weighted:
        train = Split(
            train.product, train.labels, train.excluded, rng.random(len(train.labels.values))
        )
    return Curated(made.labels, made.rows | {"train": train})


def pairs(split: Split, labels: np.ndarray) -> dict[int, set[int]]:
    """{product: the products of its labels}."""
    return {int(p): set(labels[split.labels[i]].tolist()) for i, p in enumerate(split.product)}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(4, 40),
    st.integers(1, 6),
    st.sampled_from(KINDS),
    st.integers(2, 6),
    st.integers(0, 999),
    st.booleans(),
)
def test_a_fold_is_what_a_loop_over_its_relations_gives(n, degree, kind, folds, seed, weighted):
    try:
        data = curated(n, degree, kind, seed, weighted)
    except MufinError:
        return
    number = draw_folds(data.train.product, folds, seed)
    for fold in range(folds):
        left_out = number == fold
        part, labels, datapoints = fold_of(data, left_out, kind)
        held = set(data.train.product[left_out].tolist())
        before = pairs(data.train, data.labels)
        rest = {p: found for p, found in before.items() if p not in held}
        known = set().union(*rest.values()) if rest else set()
        if kind in ("cold", "time"):
            known -= held
        if kind == "released":
            known = set(data.labels.tolist())
        assert part.labels.tolist() == data.labels[labels].tolist()
        assert set(part.labels.tolist()) == known
        assert pairs(part.train, part.labels) == {
            p: found & known for p, found in rest.items() if found & known
        }
        asked, expected = part.splits["test"], {}
        excluded = {}
        for row in np.flatnonzero(left_out):
            p = int(data.train.product[row])
            excluded[p] = set(data.labels[data.train.excluded[row]].tolist())
            if kind == "warm":
                excluded[p] |= {q for q, found in rest.items() if p in found}
            excluded[p] &= known
            if (before[p] & known) - excluded[p]:
                expected[p] = before[p] & known
        assert pairs(asked, part.labels) == expected
        for i, p in enumerate(asked.product.tolist()):
            assert set(part.labels[asked.excluded[i]].tolist()) == excluded[p]
        assert data.train.product[datapoints].tolist() == asked.product.tolist()
        assert len(part.splits["valid"]) == 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(6, 60),
    st.integers(1, 6),
    st.sampled_from(["cold", "time"]),
    st.integers(2, 6),
    st.integers(0, 999),
)
def test_no_left_out_product_takes_part_in_a_cold_fold(n, degree, kind, folds, seed):
    try:
        data = curated(n, degree, kind, seed)
    except MufinError:
        return
    number = draw_folds(data.train.product, folds, seed)
    for fold in range(folds):
        part, labels, _ = fold_of(data, number == fold, kind)
        held = set(data.train.product[number == fold].tolist())
        assert not held & (set(part.train.product.tolist()) | set(part.labels.tolist()))
        trained = set(part.train.labels.values.tolist())
        assert trained == set(range(len(labels)))


def test_weights_stay_with_their_pairs():
    data = curated(40, 5, "cold", 3, weighted=True)
    before = {
        (int(p), int(data.labels[label])): weight
        for i, p in enumerate(data.train.product)
        for label, weight in zip(
            data.train.labels[i],
            data.train.weights[data.train.labels.offsets[i] : data.train.labels.offsets[i + 1]],
        )
    }
    part, _, _ = fold_of(data, draw_folds(data.train.product, 3, 0) == 1, "cold")
    source = part.train.product[part.train.labels.rows()]
    target = part.labels[part.train.labels.values]
    assert len(part.train.weights) == len(source) > 20
    for p, label, weight in zip(source.tolist(), target.tolist(), part.train.weights):
        assert before[p, label] == weight
    assert part.splits["test"].weights is None


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(2, 9), st.integers(0, 99))
def test_a_product_is_in_one_fold_and_folds_are_level(products, folds, seed):
    number = draw_folds(np.array(products, np.int64), folds, seed)
    assert number.tolist() == draw_folds(np.array(products, np.int64), folds, seed).tolist()
    of = {}
    for product, fold in zip(products, number.tolist()):
        assert of.setdefault(product, fold) == fold and 0 <= fold < folds
    sizes = np.bincount(list(of.values()), minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_another_seed_draws_other_folds():
    products = np.arange(100)
    assert draw_folds(products, 5, 0).tolist() != draw_folds(products, 5, 1).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fold_of_all_datapoints_is_empty(kind):
    data = curated(20, 4, kind, 1)
    part, labels, datapoints = fold_of(data, np.ones(len(data.train), bool), kind)
    assert len(part.train) == 0
    assert len(datapoints) == 0 or kind == "released"


def test_reverse_relations_do_not_tell_the_answer_in_warm_folds():
    """All relations are mutual: what points back at a left-out datapoint is excluded."""
    data = curated(40, 4, "warm", 2)
    number, seen = draw_folds(data.train.product, 4, 0), 0
    for fold in range(4):
        part, _, _ = fold_of(data, number == fold, "warm")
        asked, train = part.splits["test"], pairs(part.train, part.labels)
        for i, p in enumerate(asked.product.tolist()):
            excluded = set(part.labels[asked.excluded[i]].tolist())
            back = {q for q, found in train.items() if p in found}
            assert back & set(part.labels.tolist()) <= excluded
            seen += len(back)
    assert seen > 20
