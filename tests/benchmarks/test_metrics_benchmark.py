"""The benchmark of metrics: both ways agree on a small problem that is like a test split."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.metrics import main, problem


def test_predictions_of_the_problem_are_distinct_and_end_in_padding():
    predictions, truth, counts = problem(200, 3000, 30)
    assert predictions.dtype == truth.values.dtype == np.int32 and len(counts) == 3000
    for row in predictions.tolist():
        there = [label for label in row if label >= 0]
        assert len(set(there)) == len(there) and row == there + [-1] * (30 - len(there))


def test_both_ways_give_the_same_metrics(tmp_path):
    pytest.importorskip("napkinxc.metrics")
    main(datapoints=300, labels=5000, width=100, repeats=1, out=tmp_path / "metrics.json")
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert len(report["rows"]) == 3
    assert float(report["question"].split("difference ")[1].split()[0]) < 1e-9
