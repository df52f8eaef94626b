"""The share of neighbours of one category, against a slow loop."""

from __future__ import annotations

import numpy as np

from mufin.reporting.classifiers import same_category


def test_neighbours_of_the_same_category_are_those_of_a_slow_loop():
    rng = np.random.default_rng(2)
    w, category = rng.normal(size=(40, 6)), np.array(["a", "b", "c", ""])[rng.integers(0, 4, 40)]
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    known = [i for i in range(40) if category[i]]
    same = []
    for i in known:
        others = sorted((j for j in known if j != i), key=lambda j, i=i: -unit[i] @ unit[j])
        same += [category[j] == category[i] for j in others[:10]]
    chance = np.mean([category[i] == category[j] for i in known for j in known if i != j])
    np.testing.assert_allclose(same_category(w, category), (100 * np.mean(same), 100 * chance))


def test_without_two_categories_or_enough_labels_there_is_no_share():
    w = np.random.default_rng(2).normal(size=(40, 6))
    assert same_category(w, np.full(40, "a")) is None
    assert same_category(w[:5], np.array(["a", "b", "a", "b", "a"])) is None
