"""Every metric against a slow loop over its definition, and against napkinXC where it has it."""

from __future__ import annotations

from math import log, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin import hits
from mufin import metrics as xc
from mufin.ragged import Lists

PROBLEMS = (
    st.integers(1, 12),
    st.integers(1, 25),
    st.integers(0, 14),
    st.integers(1, 12),
    st.integers(0, 10**6),
)


class Problem:
    """Random predictions (some too few), truth and filter pairs (some none), and train counts."""

    def __init__(self, n: int, labels: int, width: int, seed: int):
        rng = np.random.default_rng(seed)
        self.n, self.labels = n, labels
        self.predictions = np.full((n, width), -1, np.int64)
        for row in self.predictions:
            given_up = rng.permutation(labels)[: rng.integers(0, width + 1)]
            row[: len(given_up)] = given_up
        self.truth = Lists.of_rows(
            [rng.permutation(labels)[: rng.integers(0, 6)] for _ in range(n)]
        )
        self.excluded = Lists.of_rows(
            [rng.permutation(labels)[: rng.integers(0, 4)] for _ in range(n)]
        )
        self.counts = rng.integers(0, 5, labels)
        self.weights = 1 + rng.random(labels) * 9

    def top(self, i: int, k: int) -> list[int]:
        return [p for p in self.predictions[i].tolist() if p >= 0 and p not in self.excluded[i]][:k]

    def true(self, i: int) -> list[int]:
        return [t for t in self.truth[i].tolist() if t not in self.excluded[i]]

    def gains(self, i: int, k: int) -> list[int]:
        return [int(p in self.true(i)) for p in self.top(i, k)]

    def mean(self, of) -> float:
        return 100 * sum(of(i) for i in range(self.n)) / self.n


def dcg(gains) -> float:
    return sum(g / log2(place + 2) for place, g in enumerate(gains))


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS)
def test_precision_recall_and_ndcg_equal_their_definitions(n, labels, width, k, seed):
    p = Problem(n, labels, width, seed)
    three = (p.predictions, p.truth, k, p.excluded)
    assert xc.precision_at_k(*three) == pytest.approx(p.mean(lambda i: sum(p.gains(i, k)) / k))
    assert xc.recall_at_k(*three) == pytest.approx(
        p.mean(lambda i: sum(p.gains(i, k)) / len(p.true(i)) if p.true(i) else 0)
    )
    assert xc.ndcg_at_k(*three) == pytest.approx(
        p.mean(lambda i: dcg(p.gains(i, k)) / dcg([1] * min(k, len(p.true(i)))) if p.true(i) else 0)
    )


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS)
def test_propensity_scored_metrics_are_ratios_of_weighted_gains(n, labels, width, k, seed):
    p = Problem(n, labels, width, seed)
    got, best, got_n, best_n = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        if not (true := p.true(i)):
            continue
        gains = [p.weights[label] if label in true else 0 for label in p.top(i, k)]
        ideal = sorted((p.weights[label] for label in true), reverse=True)[:k]
        places = dcg([1] * min(k, len(true)))
        got, best = got + sum(gains) / k, best + sum(ideal) / k
        got_n, best_n = got_n + dcg(gains) / places, best_n + dcg(ideal) / places
    assert xc.psp_at_k(p.predictions, p.truth, k, p.weights, p.excluded) == pytest.approx(
        100 * got / best if best else 0
    )
    assert xc.psndcg_at_k(p.predictions, p.truth, k, p.weights, p.excluded) == pytest.approx(
        100 * got_n / best_n if best_n else 0
    )


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS)
def test_auc_is_the_share_of_correctly_ordered_pairs(n, labels, width, k, seed):
    p = Problem(n, labels, width, seed)

    def area(i: int) -> float:
        gains = p.gains(i, k)
        gains = [*gains, *[False] * (k - len(gains))]  # missing predictions are negatives
        pairs = [(a, b) for a, x in enumerate(gains) if x for b, y in enumerate(gains) if not y]
        return sum(a < b for a, b in pairs) / len(pairs) if pairs else 0.0

    assert xc.auc_at_k(p.predictions, p.truth, k, p.excluded) == pytest.approx(p.mean(area))


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS, st.integers(1, 4), st.booleans())
def test_evaluate_gives_what_each_function_gives_alone(n, labels, width, k, seed, rows, filtered):
    p = Problem(n, labels, width, seed)
    weights = xc.inverse_propensity(p.counts, 50, 0.6, 2.6)
    excluded = p.excluded if filtered else None
    tail = np.flatnonzero(p.counts <= 1)
    expected = {}
    for depth in (1, k):
        three = (p.predictions, p.truth, depth)
        expected[f"P@{depth}"] = xc.precision_at_k(*three, excluded)
        expected[f"nDCG@{depth}"] = xc.ndcg_at_k(*three, excluded)
        expected[f"PSP@{depth}"] = xc.psp_at_k(*three, weights, excluded)
        expected[f"PSnDCG@{depth}"] = xc.psndcg_at_k(*three, weights, excluded)
        expected[f"R@{depth}"] = xc.recall_at_k(*three, excluded)
    expected[f"AUC@{k}"] = xc.auc_at_k(p.predictions, p.truth, k, excluded)
    expected["tail R@10"] = xc.recall_of_labels(p.predictions, p.truth, excluded, tail, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hits, "ROWS", rows)  # blocks of `rows` rows
        found = xc.evaluate(
            p.predictions,
            p.truth,
            excluded,
            p.counts,
            50,
            (0.6, 2.6),
            ks=(1, k),
            recall_ks=(1, k),
            auc_k=k,
            tail_labels=tail,
        )
    assert found == expected  # to the last bit


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS)
def test_the_heaviest_labels_of_each_row_come_first(n, labels, _, k, seed):
    p = Problem(n, labels, 1, seed)
    weights = np.floor(p.weights)  # with ties
    slow = [sorted((weights[label] for label in p.truth[i]), reverse=True)[:k] for i in range(n)]
    found = hits.heaviest(p.truth, weights, k)
    assert found.tolist() == [row + [0.0] * (k - len(row)) for row in slow]


@pytest.mark.parametrize("seed", range(6))
def test_shared_metrics_equal_napkinxc(seed):
    theirs = pytest.importorskip("napkinxc.metrics")
    p = Problem(200, 60, 12, seed)
    true, top = [p.true(i) for i in range(p.n)], [p.top(i, 12) for i in range(p.n)]
    pairs = {
        "precision": (xc.precision_at_k, theirs.precision_at_k),
        "recall": (xc.recall_at_k, theirs.recall_at_k),
        "ndcg": (xc.ndcg_at_k, theirs.ndcg_at_k),
    }
    for name, (ours, reference) in pairs.items():
        figures = [ours(p.predictions, p.truth, k, p.excluded) for k in range(1, 11)]
        np.testing.assert_allclose(
            figures, 100 * reference(true, top, k=10), atol=1e-9, err_msg=name
        )
    for ours, reference in (
        (xc.psp_at_k, theirs.psprecision_at_k),
        (xc.psndcg_at_k, theirs.psndcg_at_k),
    ):
        figures = [ours(p.predictions, p.truth, k, p.weights, p.excluded) for k in range(1, 11)]
        np.testing.assert_allclose(figures, 100 * reference(true, top, p.weights, k=10), atol=1e-9)


def test_inverse_propensities_equal_napkinxc_and_the_formula():
    train = Problem(80, 30, 3, 0).truth
    counts = np.bincount(train.values, minlength=30)
    found = xc.inverse_propensity(counts, 80, 0.55, 1.5)
    slow = [1 + (log(80) - 1) * 2.5**0.55 * (c + 1.5) ** -0.55 for c in counts]
    np.testing.assert_allclose(found, slow)
    theirs = pytest.importorskip("napkinxc.metrics")
    matrix = np.zeros((80, 30))
    matrix[train.rows(), train.values] = 1
    np.testing.assert_allclose(found, theirs.Jain_et_al_inverse_propensity(matrix, 0.55, 1.5))


def test_a_datapoint_without_truth_stays_in_the_mean():
    predictions, truth = np.array([[0, 1], [0, 1]]), Lists.of_rows([[0, 1], []])
    for figure in (xc.precision_at_k, xc.recall_at_k, xc.ndcg_at_k):
        assert figure(predictions, truth, 2) == 50
    assert xc.auc_at_k(predictions, truth, 3) == 50  # the missing third is a negative
    for figure in (xc.psp_at_k, xc.psndcg_at_k):  # ratios of sums: such a datapoint adds to neither
        assert figure(predictions, truth, 2, np.ones(2)) == 100


def test_metrics_are_zero_without_truth_or_datapoints():
    for predictions, truth in (
        (np.array([[0, 1]]), Lists.of_rows([[]])),
        (np.zeros((0, 2), np.int64), Lists.of_rows([])),
    ):
        figures = xc.evaluate(predictions, truth, None, np.array([1, 2]), 10, (0.6, 2.6))
        assert set(figures.values()) == {0.0}


def test_missing_predictions_are_misses_and_padding_is_no_label():
    predictions, truth = np.array([[2, -1, -1]]), Lists.of_rows([[2, 3]])
    assert xc.precision_at_k(predictions, truth, 3) == pytest.approx(100 / 3)
    assert xc.precision_at_k(predictions, truth, 5) == pytest.approx(20)  # k is past the width
    assert xc.recall_at_k(predictions, truth, 5) == pytest.approx(50)
    assert xc.ndcg_at_k(predictions, truth, 5) == pytest.approx(100 / (1 + 1 / log2(3)))
    assert xc.auc_at_k(predictions, truth, 3) == 100  # a padding is a negative
    assert xc.recall_by_bin(predictions, truth, None, np.zeros(4, int), 3, 1).tolist() == [50]
    assert xc.precision_at_k(np.full((1, 3), -1), truth, 3) == 0


def test_filter_pairs_leave_predictions_and_truth_before_the_cut():
    predictions = np.array([[5, 4, 3], [5, 4, 3]])
    truth, excluded = Lists.of_rows([[4, 5], [4, 5]]), Lists.of_rows([[5], []])
    assert xc.precision_at_k(predictions, truth, 1, excluded) == 100  # 4 moves up in the first
    assert xc.recall_at_k(predictions, truth, 1, excluded) == 75  # the first has only 4 to find
    closed, left = hits.filtered(predictions, truth, excluded)
    assert closed.tolist() == [[4, 3, -1], [5, 4, 3]]
    assert left[0].tolist() == [4] and left[1].tolist() == [4, 5]
    assert hits.filtered(predictions, truth, None)[0] is predictions


def test_auc_without_a_pair_is_zero():
    truth = Lists.of_rows([[0, 1]])
    assert xc.auc_at_k(np.array([[0, 1]]), truth, 2) == 0  # as in pyxclib
    assert xc.auc_at_k(np.array([[0, 1]]), truth, 3) == 100
    assert xc.auc_at_k(np.array([[2, 3]]), truth, 2) == 0
    assert xc.auc_at_k(np.array([[2, 0, 3, 1]]), truth, 4) == 25  # of four pairs, only 0 before 3


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS, st.integers(1, 6))
def test_popularity_bins_are_ordered_and_share_the_pairs_evenly(n, labels, _, __, seed, bins):
    p = Problem(n, labels, 1, seed)
    found = xc.popularity_bins(p.counts, p.truth, bins)
    assert found.min() >= 0 and found.max() < bins
    order = sorted(range(labels), key=lambda label: (p.counts[label], label))
    assert (np.diff(found[order]) >= 0).all()
    pairs = np.bincount(p.truth.values, minlength=labels)
    held = [sum(pairs[label] for label in range(labels) if found[label] == b) for b in range(bins)]
    assert sum(held) == pairs.sum()
    assert all(abs(h - pairs.sum() / bins) <= pairs.max() for h in held)


def test_popularity_bins_of_equal_labels_are_cut_by_id():
    truth = Lists.of_rows([[0, 1, 2, 3], [4, 5]])
    assert xc.popularity_bins(np.ones(6, int), truth, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert xc.popularity_bins(np.array([9, 1, 1, 1, 1, 1]), truth, 3).tolist() == [2, 0, 0, 1, 1, 2]
    assert xc.popularity_bins(np.array([3, 1]), Lists.of_rows([[]]), 3).tolist() == [0, 0]


@settings(max_examples=60, deadline=None)
@given(*PROBLEMS, st.integers(1, 6))
def test_recall_by_bin_equals_a_loop(n, labels, width, k, seed, bins):
    p = Problem(n, labels, width, seed)
    label_bin = xc.popularity_bins(p.counts, p.truth, bins)
    slow = [
        p.mean(
            lambda i, b=b: (
                sum(x in p.true(i) and label_bin[x] == b for x in p.top(i, k))
                / max(len(p.true(i)), 1)
            )
        )
        for b in range(bins)
    ]
    found = xc.recall_by_bin(p.predictions, p.truth, p.excluded, label_bin, k, bins)
    np.testing.assert_allclose(found, slow, atol=1e-9)
    assert found.sum() == pytest.approx(xc.recall_at_k(p.predictions, p.truth, k, p.excluded))


@settings(max_examples=40, deadline=None)
@given(*PROBLEMS)
def test_precision_by_category_is_of_its_datapoints_alone(n, labels, width, k, seed):
    p = Problem(n, labels, width, seed)
    category = np.random.default_rng(seed).choice(np.array(["", "Toys", "Toys > Trains"]), n)
    found = xc.precision_by_category(p.predictions, p.truth, p.excluded, category, k)
    assert set(found) == set(category.tolist())
    for name, (count, precision) in found.items():
        rows = np.flatnonzero(category == name)
        assert count == len(rows)
        assert precision == pytest.approx(
            100 * sum(sum(p.gains(i, k)) / k for i in rows) / len(rows)
        )
    sizes = [count for count, _ in found.values()]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == n


@settings(max_examples=40, deadline=None)
@given(*PROBLEMS)
def test_recall_of_chosen_labels_uses_the_shared_top(n, labels, width, k, seed):
    p = Problem(n, labels, width, seed)
    chosen = np.flatnonzero(p.counts <= 1)
    parts = []
    for i in range(n):
        if mine := [t for t in p.true(i) if t in chosen]:
            parts.append(sum(x in mine for x in p.top(i, k)) / len(mine))
    slow = 100 * sum(parts) / len(parts) if parts else 0
    assert xc.recall_of_labels(p.predictions, p.truth, p.excluded, chosen, k) == pytest.approx(slow)


def test_a_popular_label_takes_a_tail_labels_place():
    assert (
        xc.recall_of_labels(np.array([[0, 1]]), Lists.of_rows([[0, 1]]), None, np.array([1]), 1)
        == 0
    )
    assert (
        xc.recall_of_labels(np.array([[0, 1]]), Lists.of_rows([[0, 1]]), None, np.array([1]), 2)
        == 100
    )


@pytest.mark.parametrize("seed", range(4))
def test_area_under_roc_is_the_share_of_ordered_pairs(seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 9, size=11) / 4, rng.integers(0, 7, size=6) / 4
    pairs = np.array([[(p > n) + 0.5 * (p == n) for n in negative] for p in positive])
    area, error = xc.area_under_roc(positive, negative)
    assert area == pytest.approx(pairs.mean())
    variance = pairs.mean(1).var(ddof=1) / 11 + pairs.mean(0).var(ddof=1) / 6  # DeLong et al.
    assert error == pytest.approx(variance**0.5)


def test_equal_best_answers_of_a_blank_count_as_a_guess():
    scores = np.array([[1, 0, -np.inf], [2, 2, 1], [0, 3, 1]], np.float32)
    assert xc.blanks_filled(scores, np.array([0, 1, 2])).tolist() == [1, 0.5, 0]
    assert xc.blanks_filled(np.zeros((0, 0)), np.zeros(0, int)).tolist() == []


def test_area_under_roc_needs_scores_on_both_sides():
    assert all(np.isnan(xc.area_under_roc(np.ones(2), np.zeros(0))))
    assert xc.area_under_roc(np.ones(1), np.zeros(1)) == (1.0, 0.0)
