"""The table: its figures per datapoint, the rows in bold, what it says under the figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compare.per_datapoint import of_ratio, values
from compare.rows import CEILINGS
from compare.table import BOLD, METRICS, TIME, Row, bold, mean_and_spread, notes
from mufin.artifacts.curated import Split
from mufin.evaluation.breakdowns import standard_error
from mufin.evaluation.evaluator import Evaluator
from mufin.ragged import Lists


def random_split(rng: np.random.Generator, n: int, labels: int) -> Split:
    """Datapoints with 0 to 5 labels and up to 2 filter pairs."""

    def rows(most: int) -> Lists:
        return Lists.of_rows(
            [np.sort(rng.permutation(labels)[: rng.integers(0, most)]) for _ in range(n)]
        )

    return Split(np.arange(n, dtype=np.int32), rows(6), rows(3))


def evaluator_of(split: Split, frequency: np.ndarray) -> Evaluator:
    return Evaluator({"test": split}, frequency, 500, (0.55, 1.5), 4)


def random_case(seed: int, n: int, width: int, labels: int = 40) -> tuple[np.ndarray, Evaluator]:
    rng = np.random.default_rng(seed)
    predictions = np.stack([rng.permutation(labels)[:width] for _ in range(n)])
    predictions[np.arange(width) >= rng.integers(width // 2, width + 1, n)[:, None]] = -1
    return predictions, evaluator_of(random_split(rng, n, labels), rng.integers(0, 12, labels))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 40))
def test_values_per_datapoint_average_to_the_evaluators_figures(seed, n, width):
    predictions, evaluator = random_case(seed, n, width)
    expected = evaluator.metrics(predictions, "test")
    found = values(predictions, evaluator)
    assert list(found) != [] and set(found) == set(METRICS)
    for name, value in found.items():
        assert value.shape == (n,)
        assert value.mean() == pytest.approx(expected[name], abs=1e-4), name


def test_the_standard_error_is_that_of_a_bootstrap():
    predictions, evaluator = random_case(0, 400, 40)
    split, rng, drawn = evaluator.splits["test"], np.random.default_rng(1), []
    for _ in range(400):
        rows = rng.integers(0, 400, 400)
        again = evaluator_of(split.take(rows), evaluator.frequency)
        figures = again.metrics(predictions[rows], "test")
        drawn.append([figures[m] for m in METRICS])
    expected = dict(zip(METRICS, np.std(drawn, axis=0)))
    for name, value in values(predictions, evaluator).items():
        assert standard_error(value) == pytest.approx(expected[name], rel=0.15), name


def test_a_ratio_of_nothing_is_zero():
    assert of_ratio(np.zeros(3), np.zeros(3)).tolist() == [0, 0, 0]
    assert of_ratio(np.array([1.0, 0.0]), np.array([1.0, 3.0])).mean() == 0.25


def row(name: str, **figures: float) -> dict:
    """A row of the table with every figure 1 but those given."""
    return {
        "row": name,
        "title": name,
        "group": "MUFIN",
        "seeds": [0],
        "failed": None,
        "metrics": {m: [figures.get(m, 1.0), 0.0] for m in (*METRICS, TIME)},
        "standard_errors": {m: 0.1 for m in METRICS},
    }


def measured(name: str, values: np.ndarray, milliseconds: float = 1.0) -> Row:
    return Row(row(name, milliseconds=milliseconds), {m: values for m in METRICS})


def test_a_row_is_bold_if_its_lead_exceeds_the_standard_error():
    rng = np.random.default_rng(0)
    base = rng.normal(50, 20, 400)  # the same datapoints are hard for all rows
    little, much = base + rng.normal(0.2, 20, 400), base + rng.normal(3, 1, 400)
    failed = Row(row("xt") | {"metrics": {}, "failed": "gone"}, {})
    leads = bold([measured("a", base), measured("b", much, 0.5), failed])
    assert {leads[m] for m in METRICS} == {"b"} and leads[TIME] == "b"
    assert {bold([measured("a", base), measured("b", little)])[m] for m in METRICS} == {None}
    three = [measured("a", much + 0.001), measured("b", much), measured("c", base)]
    assert {bold(three)[m] for m in METRICS} == {"a"}  # ever so little, but for every datapoint
    assert set(bold([measured("a", base), failed]).values()) == {None}
    above = measured("ceiling", much + 20, 0.1)
    above.facts["group"] = CEILINGS
    assert {bold([*three, above])[m] for m in (*METRICS, TIME)} == {"a"}


def test_bold_is_explained_under_the_table():
    assert "standard error of their paired difference over datapoints" in BOLD


def test_spread_is_the_deviation_of_a_sample():
    assert mean_and_spread([1.0, 3.0]) == [2.0, 1.4142] and mean_and_spread([1.0]) == [1.0, 0.0]


@pytest.mark.parametrize(
    "figures, said",
    [
        ({"P@1": 1.5, "tail R@10": 1.2}, "P@1 +0.50 (no loss), tail R@10 +0.20 (won)"),
        ({"P@1": 0.5, "tail R@10": 1.2}, "P@1 -0.50 (LOST), tail R@10 +0.20 (won)"),
        ({"P@1": 1.0, "tail R@10": 1.0}, "P@1 +0.00 (no loss), tail R@10 +0.00 (NOT WON)"),
    ],
)
def test_notes_say_whether_scoring_rare_labels_differently_paid(figures, said):
    mixed = row("mufin_rare_and_popular", **figures)
    assert said in notes([row("mufin"), mixed])[0]
    chosen = row("mufin", **{"P@1": 9.0})
    assert said in notes([chosen, row("mufin_fixed"), mixed])[0]
    assert notes([row("mufin")]) == []


def test_notes_name_the_row_to_compare_sampling_with():
    assert "row by soft triplets" in notes([row("mufin"), row("soft_triplet")])[0]
