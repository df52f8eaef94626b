"""Breakdowns against slow loops, their standard errors and leads against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mufin import metrics
from mufin.artifacts.curated import Curated, Split
from mufin.evaluation import breakdowns
from mufin.ragged import Lists

CASE = tuple[np.random.Generator, np.ndarray, Lists, Lists]


def random_case(seed: int = 0, n: int = 60, labels: int = 30) -> CASE:
    """Predictions, truth (some of it empty) and filter pairs."""
    rng = np.random.default_rng(seed)
    predictions = np.stack([rng.permutation(labels)[:12] for _ in range(n)])
    truth = Lists.of_rows([rng.permutation(labels)[: rng.integers(0, 6)] for _ in range(n)])
    excluded = Lists.of_rows([rng.permutation(labels)[: rng.integers(0, 3)] for _ in range(n)])
    return rng, predictions, truth, excluded


def kept(predictions: np.ndarray, truth: Lists, excluded: Lists, i: int) -> tuple[list, set]:
    """Predictions and truth of datapoint i without its filter pairs."""
    gone = set(excluded[i].tolist())
    return [p for p in predictions[i].tolist() if p not in gone], set(truth[i].tolist()) - gone


def test_figures_of_groups_are_those_of_a_slow_loop():
    rng, *case = random_case()
    group = rng.integers(0, 3, len(case[0]))
    means, errors = breakdowns.of_groups(breakdowns.per_datapoint(*case), group, 4)
    assert np.isnan(means[3]).all() and np.isnan(errors[3]).all()
    for g in range(3):
        values = []
        for i in np.flatnonzero(group == g):
            ranked, right = kept(*case, i)
            at_1, at_5, at_10 = (len(right & set(ranked[:k])) for k in (1, 5, 10))
            values.append([at_1, at_5 / 5, at_10 / max(len(right), 1)])
        np.testing.assert_allclose(means[g], 100 * np.mean(values, axis=0))
        error = 100 * np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(errors[g], error)


def test_means_over_datapoints_are_the_metrics():
    _, predictions, truth, excluded = random_case(2)
    wanted = [
        metrics.precision_at_k(predictions, truth, 1, excluded),
        metrics.precision_at_k(predictions, truth, 5, excluded),
        metrics.recall_at_k(predictions, truth, 10, excluded),
    ]
    found = breakdowns.per_datapoint(predictions, truth, excluded).mean(0)
    np.testing.assert_allclose(found, wanted)


def test_bins_of_popularity_are_those_of_a_slow_loop():
    rng, *case = random_case(1)
    predictions, truth, excluded = case
    frequency = rng.integers(0, 9, 30)
    order = sorted(range(30), key=lambda label: (frequency[label], label))
    pairs, before, label_bin = [int((truth.values == label).sum()) for label in order], 0, {}
    for label, own in zip(order, pairs):
        label_bin[label] = min(int((before + own / 2) * 5 / sum(pairs)), 4)
        before += own
    wanted = np.zeros((len(predictions), 5))
    for i in range(len(predictions)):
        ranked, right = kept(*case, i)
        for label in ranked[:10]:
            wanted[i, label_bin[label]] += 100 * (label in right) / max(len(right), 1)
    found = breakdowns.bins_per_datapoint(*case, frequency)
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(found.sum(1), breakdowns.per_datapoint(*case)[:, 2])


def test_frequencies_of_bins_cover_all_labels():
    rng, _, truth, _ = random_case(1)
    frequency = rng.integers(0, 9, 30)
    edges = breakdowns.bin_frequencies(frequency, truth)
    assert sum(count for count, _, _ in edges) == 30
    assert edges[0][1] == frequency.min() and edges[-1][2] == frequency.max()


def test_a_standard_error_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=(50, 3))
    resampled = np.random.default_rng(1).integers(0, 50, (20_000, 50))
    bootstrap = values[resampled].mean(1).std(0)
    np.testing.assert_allclose(breakdowns.standard_error(values), bootstrap, rtol=0.05)
    assert np.isnan(breakdowns.standard_error(values[:1])).all()


def test_a_row_leads_where_the_paired_difference_exceeds_its_error():
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 50, 200)  # what all rows have in common cancels out
    noise = rng.normal(0, 1, 200)
    base = hard + 1
    assert breakdowns.leader(np.stack([base, base + 0.5 + noise - noise.mean(), hard])) == 1
    error = noise.std(ddof=1) / np.sqrt(200)
    close = base + noise - noise.mean() + 0.9 * error
    assert breakdowns.leader(np.stack([base, close])) is None
    far = base + noise - noise.mean() + 1.1 * error
    assert breakdowns.leader(np.stack([base, far])) == 1


@pytest.mark.parametrize("rows, n", [(1, 9), (3, 1), (3, 0), (0, 9)])
def test_too_few_rows_or_datapoints_have_no_leader(rows, n):
    assert breakdowns.leader(np.arange(rows * n, dtype=float).reshape(rows, n)) is None


def test_equal_rows_have_no_leader():
    assert breakdowns.leader(np.ones((2, 20))) is None


def test_groups_by_pictures():
    groups = breakdowns.by_pictures(np.array([0, 1, 2, 3, 4, 5, 6, 15]))
    names = [breakdowns.PICTURES[i] for i in groups]
    assert names == ["0", "1", "2", "3", "4-5", "4-5", "6 and more", "6 and more"]


def test_groups_by_modality():
    yes_no = np.array([True, False])
    groups = breakdowns.by_modality(np.repeat(yes_no, 2), np.tile(yes_no, 2))
    names = [breakdowns.MODALITIES[i] for i in groups]
    assert names == ["title and picture", "no picture", "no title", "neither"]


def test_groups_by_category_name_the_largest_first():
    names, place = breakdowns.by_category(np.array(["b", "a", "b", "", "c", "a", "b"]), 2)
    assert names == ["b", "a", "others"] and place.tolist() == [0, 1, 0, 2, 2, 1, 0]


def timed(seed: int = 0) -> Curated:
    """A split by time of products 0 to 49, of which the first 30 are train datapoints."""
    rng = np.random.default_rng(seed)

    def split(products: np.ndarray) -> Split:
        truth = Lists.of_rows(
            [np.sort(rng.permutation(12)[: rng.integers(1, 5)]) for _ in products]
        )
        return Split(products, truth, Lists.of_rows([[p] if p < 12 else [] for p in products]))

    test = rng.permutation(50)[:25]
    return Curated(np.arange(12), {"train": split(np.arange(30)), "test": split(test)})


def test_known_and_new_are_those_of_a_slow_loop():
    data, rng = timed(), np.random.default_rng(1)
    train, test = data.train, data.splits["test"]
    predictions = np.stack([rng.permutation(12)[:10] for _ in test.product])
    of = {name: [] for name in (*breakdowns.KNOWN, *breakdowns.PAIRS)}
    for i, product in enumerate(test.product):
        old = set(train.labels[product].tolist()) if product < 30 else set()
        right, own = set(test.labels[i].tolist()), set(test.excluded[i].tolist())
        kinds = {breakdowns.KNOWN[int(product >= 30)]: (right, own)}
        if right - old:
            kinds["new pairs"] = right - old, own | (right & old)
        if right & old:
            kinds["repeated pairs"] = right & old, own | (right - old)
        for name, (wanted, gone) in kinds.items():
            ranked = [p for p in predictions[i].tolist() if p not in gone]
            wanted = wanted - gone
            hits = [len(wanted & set(ranked[:k])) for k in (1, 5, 10)]
            of[name].append([hits[0], hits[1] / 5, hits[2] / max(len(wanted), 1)])
    found = breakdowns.of_known_and_new(predictions, data, "test")
    assert [name for name, _, _ in found] == list(of)
    for name, count, values in found:
        assert count == len(of[name])
        np.testing.assert_allclose(values, 100 * np.mean(of[name], axis=0))


def test_without_known_products_all_are_cold_and_no_pair_is_repeated():
    data = timed()
    cold = np.arange(40, 45)
    truth = Lists.of_rows([[0]] * 5)
    data.splits["test"] = Split(cold, truth, Lists.of_rows([[]] * 5))
    found = breakdowns.of_known_and_new(np.zeros((5, 1), int), data, "test")
    assert found == [("cold products", 5, [100.0, 20.0, 100.0])]
    data.splits["test"] = Split(cold[:0], Lists.of_rows([]), Lists.of_rows([]))
    assert breakdowns.of_known_and_new(np.zeros((0, 1), int), data, "test") == []
