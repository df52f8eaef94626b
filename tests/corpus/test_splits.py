"""Splits that do not leak, and dense subsamples; hypothesis over random graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.curated import Split
from mufin.corpus.splits import cold_split, mutual, released_split, time_split, warm_split
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


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 40), st.integers(0, 999))
def test_a_time_split_has_the_relations_of_each_period(n, seed):
    periods = {name: graph(n, 3, seed + i) for i, name in enumerate(("train", "valid", "test"))}
    try:
        s = time_split(periods)
    except MufinError:
        assert not len(periods["train"].values)
        return
    known = set(s.labels) | set(s.rows["train"].product)
    assert set(s.labels) == set(periods["train"].values)
    later = set(periods["valid"].values) | set(periods["test"].values)
    assert set(s.unseen) == later - known
    candidates = np.concatenate([s.labels, s.unseen])
    for name, rows in s.rows.items():
        expected = [p for p in range(n) if set(periods[name][p]) & set(s.labels)]
        assert rows.product.tolist() == expected
        for i, p in enumerate(rows.product):
            assert set(s.labels[rows.labels[i]]) == set(periods[name][p]) & set(s.labels)
            assert set(s.labels[rows.excluded[i]]) == {p} & set(s.labels)
            if name != "train":
                wide = s.unseen_rows[name]
                assert wide.product[i] == p
                assert set(candidates[wide.labels[i]]) == set(periods[name][p]) & set(candidates)


def test_a_time_split_without_relations_in_train_names_settings():
    empty, some = Lists.of_rows([[], []]), Lists.of_rows([[1], [0]])
    with pytest.raises(MufinError, match="lower curate.test"):
        time_split({"train": empty, "valid": empty, "test": some})


def test_labels_that_are_no_products_are_never_held_out():
    rng = np.random.default_rng(3)
    relations = Lists.of_rows([*(30 + rng.permutation(10)[:3] for _ in range(30)), *([[]] * 10)])
    s = cold_split(relations, 0.3, 0.2, np.random.default_rng(0), first_label=30)
    named = {name: set(relations.take(rows.product).values) for name, rows in s.rows.items()}
    assert set(s.labels) == named["train"] and min(s.labels) >= 30
    assert set(s.unseen) == (named["valid"] | named["test"]) - named["train"]
    assert not any(rows.excluded.values.any() for rows in s.rows.values())
    assert sum(map(len, s.rows.values())) == 30


def test_a_label_of_no_train_datapoint_is_unseen():
    relations = Lists.of_rows([*([[20]] * 19), [20, 21], [], []])
    for seed in range(40):
        s = cold_split(relations, 0.1, 0.1, np.random.default_rng(seed), first_label=20)
        in_train = 19 in s.rows["train"].product
        assert s.unseen.tolist() == ([] if in_train else [21])
        assert s.labels.tolist() == ([20, 21] if in_train else [20])


def test_mutual_means_every_pair_both_ways():
    assert mutual(Lists.of_rows([[1], [0], [3], [2]]))
    assert not mutual(Lists.of_rows([[1], [0], [3], []]))
    assert not mutual(Lists.of_rows([[], []]))


def test_mutual_pairs_never_pass_a_cold_split():
    pairs = Lists.of_rows([[i ^ 1] for i in range(20)])
    for seed in range(10):
        s = cold_split(pairs, 0.3, 0.0, np.random.default_rng(seed))
        assert not len(s.rows["test"])
    with pytest.raises(MufinError, match="mutual pairs.* set curate.split to warm .* or to time"):
        cold_split(Lists.of_rows([[1], [0]]), 0.5, 0.0, np.random.default_rng(0))
