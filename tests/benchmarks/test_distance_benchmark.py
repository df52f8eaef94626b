"""The distance to the ceiling: probes find what was planted, and the command runs on a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.attribute_probes import mean_rows, probe
from benchmarks.distance import lines, main, probed_labels, weighted
from mufin.baselines.shared.ceilings import ATTRIBUTES, one_hot
from mufin.corpus.sample_attributes import VALUES


def planted(n: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose direction tells a code of 4 values, in noise."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, n)
    directions = np.random.default_rng(9).normal(size=(4, 16))
    return strength * directions[codes] + rng.normal(size=(n, 16)), codes


@pytest.mark.parametrize("strength, least, most", [(3.0, 0.99, 1.0), (0.0, 0.1, 0.4)])
def test_a_probe_reads_a_planted_attribute_and_no_other(strength, least, most):
    train, valid, test = (planted(n, strength, seed) for seed, n in enumerate((400, 100, 300)))
    read = probe(*train, *valid, 4).probabilities(test[0])
    assert read.sum(1) == pytest.approx(1)
    assert least <= (read.argmax(1) == test[1]).mean() <= most


def test_label_probes_read_other_labels_than_they_learn():
    vectors, codes = planted(300, 3.0, 0)
    noise = np.random.default_rng(1).integers(0, 4, 300)
    found = probed_labels({"w": vectors}, {"motif": (codes, 4), "noise": (noise, 4)})
    assert found["w"]["motif"] > 95 and found["w"]["noise"] < 45
    assert found["most frequent value"]["motif"] < 45


def test_mean_rows_is_a_loop_over_bags():
    rng = np.random.default_rng(0)
    rows, there = rng.normal(size=(20, 5, 3)), rng.random((20, 5)) < 0.3
    assert not there.any(1).all()
    for found, bag, mask in zip(mean_rows(rows, there), rows, there):
        kept = [row for row, keep in zip(bag, mask) if keep]
        mean = np.mean(kept, 0) if kept else np.zeros(3)
        assert found == pytest.approx([*mean, float(len(kept) > 0)], rel=1e-5)


def test_certain_probabilities_are_the_true_attributes():
    codes = {name: np.arange(3) for name in ATTRIBUTES}
    certain = {name: np.eye(VALUES[name])[codes[name]] for name in ATTRIBUTES}
    assert np.array_equal(weighted(certain), one_hot(codes))


def test_the_command_splits_the_distance_of_a_finished_run(finished, tmp_path, capsys):
    main(finished, tmp_path / "distance.json")
    tables = json.loads((tmp_path / "distance.json").read_text())["tables"]
    probes, scores = tables["accuracy of probes"], tables["ceiling, attributes as probes read them"]
    assert probes["X^0, titles, Module I"]["kind"] > probes["most frequent value"]["kind"]
    assert {f"x^1, fine-tuned: {name}" for name in ("all", *ATTRIBUTES)} < set(scores)
    distance = tables["the distance"]
    assert distance["true attributes"] == scores["true"]
    assert "data/predictions/test.parquet" in distance
    said = capsys.readouterr().out
    for table in tables.values():
        assert "\n".join(lines(table)) in said
