"""Splits that do not leak, and dense subsamples; hypothesis over random graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.curated import Split
from mufin.corpus.splits import cold_split, released_split, warm_split
from mufin.corpus.subsample import dense_subsample
from mufin.errors import MufinError
from mufin.ragged import Lists


def graph(n: int, degree: int, seed: int, mutual: bool = False) -> Lists:
    rng = np.random.default_rng(seed)
    rows = [set(rng.integers(0, n, rng.integers(0, degree + 1)).tolist()) - {i} for i in range(n)]
    if mutual:
        for i in range(n):
            for j in list(rows[i]):
                rows[j].add(i)
    return Lists.of_rows([sorted(r) for r in rows])


@settings(max_examples=40, deadline=None)
@given(st.integers(12, 80), st.integers(1, 8), st.integers(0, 999), st.booleans())
def test_no_valid_or_test_product_is_used_in_training(n, degree, seed, mutual):
    relations = graph(n, degree, seed, mutual)
    try:
        s = cold_split(relations, 0.3, 0.2, np.random.default_rng(seed))
    except MufinError:
        return
    held = set(s.rows["valid"].product) | set(s.rows["test"].product) | set(s.unseen)
    seen = set(s.rows["train"].product) | set(s.labels)
    assert not held & seen
    with_datapoint = set(s.rows["train"].labels.values.tolist())
    assert with_datapoint == set(range(len(s.labels)))
    assert not set(s.rows["valid"].product) & set(s.rows["test"].product)
    for rows in s.rows.values():
        for i, p in enumerate(rows.product):
            assert set(s.labels[rows.labels[i]]) == set(relations[p]) & set(s.labels)
            assert set(s.labels[rows.excluded[i]]) == {p} & set(s.labels)


@settings(max_examples=20, deadline=None)
@given(st.integers(15, 60), st.integers(0, 999))
def test_unseen_truth_is_all_relations_to_any_candidate(n, seed):
    relations = graph(n, 5, seed)
    try:
        s = cold_split(relations, 0.3, 0.2, np.random.default_rng(seed))
    except MufinError:
        return
    candidates = np.concatenate([s.labels, s.unseen])
    for name, rows in s.unseen_rows.items():
        assert rows.product.tolist() == s.rows[name].product.tolist()
        for i, p in enumerate(rows.product):
            assert set(candidates[rows.labels[i]]) == set(relations[p]) & set(candidates)
            assert candidates[rows.excluded[i]].tolist() == [p]


def test_a_warm_split_filters_itself_and_reciprocal_pairs():
    relations = graph(60, 5, 1, mutual=True)
    s = warm_split(relations, 0.3, 0.2, np.random.default_rng(0))
    train = set(s.rows["train"].product)
    for name in ("valid", "test"):
        for i, p in enumerate(s.rows[name].product):
            expected = {q for q in range(60) if q in train and p in relations[q]} | {p}
            assert set(s.labels[s.rows[name].excluded[i]]) == expected & set(s.labels)


def test_only_the_seed_decides_the_split():
    relations = graph(80, 5, 2)
    a, b, c = (cold_split(relations, 0.3, 0.1, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (
        a.rows["test"].product.tolist()
        == b.rows["test"].product.tolist()
        != c.rows["test"].product.tolist()
    )


def test_valid_leaves_each_released_label_a_train_datapoint():
    labels = Lists.of_rows([[0], [0, 1], [1, 2], [2], [3]])
    none = Lists.of_rows([[]] * 5)
    test = Split(np.array([9]), Lists.of_rows([[]]), Lists.of_rows([[1]]))
    s = released_split(
        np.array([5, 6, 7, 8]),
        Split(np.arange(5), labels, none),
        test,
        0.6,
        np.random.default_rng(0),
    )
    assert set(s.rows["train"].labels.values.tolist()) == {0, 1, 2, 3}
    assert len(s.rows["valid"].product) and 4 in s.rows["train"].product
    assert s.rows["test"].product.tolist() == [9] and s.rows["test"].excluded[0].tolist() == [1]


def test_a_subsample_keeps_relations_denser_than_a_random_one():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 50, 1000)
    relations = Lists.of_rows([rng.permutation(np.flatnonzero(cluster == c))[:6] for c in cluster])

    def kept(products):
        inside = np.isin(relations.take(products).values, products)
        return inside.sum() / len(products)

    dense = dense_subsample(relations, 100, np.random.default_rng(1))
    assert len(set(dense.tolist())) == 100
    assert kept(dense) > 4 * kept(np.random.default_rng(1).permutation(1000)[:100])


def test_a_split_without_labels_names_the_setting():
    with pytest.raises(MufinError, match="lower curate.test"):
        cold_split(Lists.of_rows([[1], []]), 0.9, 0.0, np.random.default_rng(0))
