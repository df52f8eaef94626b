"""The evaluator against each metric computed alone, and the categories of its breakdown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin import metrics
from mufin.artifacts.curated import Curated, Split
from mufin.evaluation.evaluator import SUMMARY, TABLE, Evaluator, categories_of, rounded
from mufin.ragged import Lists

PROPENSITY = (0.6, 2.6)


def split(rng: np.random.Generator, n: int, labels: int) -> Split:
    """n datapoints with up to 6 labels, of which some are filter pairs."""
    truth = [rng.permutation(labels)[: rng.integers(1, 7)] for _ in range(n)]
    excluded = [row[: rng.integers(0, 2)] for row in truth]
    return Split(np.arange(n), Lists.of_rows(truth), Lists.of_rows(excluded))


def problem(seed: int = 0, labels: int = 150) -> tuple[Curated, dict[str, np.ndarray]]:
    """Random splits, and 120 predictions per datapoint, of which some are missing."""
    rng = np.random.default_rng(seed)
    splits = {name: split(rng, n, labels) for name, n in (("train", 90), ("valid", 8), ("test", 9))}
    predictions = {
        name: np.stack([rng.permutation(labels)[:120] for _ in range(len(splits[name]))])
        for name in ("valid", "test")
    }
    for found in predictions.values():
        found[0, 50:] = -1
    return Curated(np.arange(labels), splits), predictions


@pytest.mark.parametrize("name", ["valid", "test"])
def test_every_metric_equals_that_computed_alone(name):
    data, predictions = problem()
    found = Evaluator.of(data, PROPENSITY, tail=2).metrics(predictions[name], name)
    truth, excluded = data.splits[name].labels, data.splits[name].excluded
    frequency = np.array([(data.train.labels.values == label).sum() for label in data.labels])
    weights = metrics.inverse_propensity(frequency, 90, *PROPENSITY)
    three = (predictions[name], truth)
    alone = {f"P@{k}": metrics.precision_at_k(*three, k, excluded) for k in (1, 3, 5)}
    alone |= {f"nDCG@{k}": metrics.ndcg_at_k(*three, k, excluded) for k in (1, 3, 5)}
    alone |= {f"PSP@{k}": metrics.psp_at_k(*three, k, weights, excluded) for k in (1, 3, 5)}
    alone |= {f"PSnDCG@{k}": metrics.psndcg_at_k(*three, k, weights, excluded) for k in (1, 3, 5)}
    alone |= {f"R@{k}": metrics.recall_at_k(*three, k, excluded) for k in (10, 20, 50, 100)}
    alone["AUC@100"] = metrics.auc_at_k(*three, 100, excluded)
    tail = np.flatnonzero(frequency < 2)
    assert 10 < len(tail) < 140
    alone["tail R@10"] = metrics.recall_of_labels(*three, excluded, tail, 10)
    assert found == {m: pytest.approx(value, abs=5.1e-5) for m, value in alone.items()}
    for names in SUMMARY.values():
        assert set(names) <= set(found) and len(names) <= 10
    assert set(TABLE) <= set(found)


def test_metrics_are_floats_of_four_digits():
    data, predictions = problem()
    found = Evaluator.of(data, PROPENSITY, tail=2).metrics(predictions["test"], "test")
    assert all(type(value) is float and value == round(value, 4) for value in found.values())
    assert rounded({"a": np.float32(1 / 3)}) == {"a": 0.3333}


def test_breakdowns_are_of_test_and_average_to_the_metrics():
    data, predictions = problem()
    evaluator = Evaluator.of(data, PROPENSITY, tail=2)
    whole = evaluator.metrics(predictions["test"], "test")
    parts = evaluator.recall_by_popularity(predictions["test"])
    assert parts.shape == (5,) and parts.sum() == pytest.approx(whole["R@10"], abs=1e-3)
    category = np.array([["", "Toys", "Lamps"][i % 3] for i in range(9)], dtype=object)
    by_category = evaluator.precision_by_category(predictions["test"], category)
    assert {name: count for name, (count, _) in by_category.items()} == {
        name: (category == name).sum() for name in ("", "Toys", "Lamps")
    }
    mean = sum(count * figure for count, figure in by_category.values()) / 9
    assert mean == pytest.approx(whole["P@5"], abs=1e-3)


@pytest.mark.parametrize(
    "paths, names",
    [
        ([], []),
        ([[], []], ["", ""]),
        ([["Home"], ["Home"]], ["Home", "Home"]),
        ([["Home", "Lamps"], ["Home", "Tables"], ["Home"]], ["Lamps", "Tables", ""]),
        ([["Home", "Lamps"], ["Toys", "Lamps"], []], ["Home", "Toys", ""]),
        ([["Home"], []], ["Home", ""]),  # one name and none do not tell products apart
        ([["A", "B", "C"], ["A", "B", "D"]], ["C", "D"]),
    ],
)
def test_categories_are_of_the_first_level_that_differs(paths, names):
    found = categories_of(paths)
    assert found.shape == (len(paths),) and found.tolist() == names


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=3), max_size=6))
def test_categories_equal_a_loop_over_the_levels(paths):
    level = 0
    for number in (2, 1, 0):
        if len({path[number] for path in paths if len(path) > number}) > 1:
            level = number
    expected = [path[level] if len(path) > level else "" for path in paths]
    assert categories_of(paths).tolist() == expected
