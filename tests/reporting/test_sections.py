"""Sections from predictions: means over seeds, narrow predictions, curves of any columns."""

from __future__ import annotations

import numpy as np

from mufin.artifacts.curated import Split
from mufin.evaluation import breakdowns
from mufin.ragged import Lists
from mufin.reporting import sections
from mufin.reporting.sections import Method


def random_split(rng: np.random.Generator, n: int, labels: int) -> Split:
    truth = Lists.of_rows([rng.permutation(labels)[: rng.integers(1, 6)] for _ in range(n)])
    return Split(np.arange(n), truth, Lists.of_rows([[]] * n))


def test_a_method_has_the_mean_over_its_seeds():
    rng = np.random.default_rng(0)
    test, frequency = random_split(rng, 40, 25), rng.integers(0, 9, 25)
    seeds = [np.stack([rng.permutation(25)[:12] for _ in range(40)]) for _ in range(3)]
    method = Method.of("a", "A", seeds, 1, test, frequency)
    figures = [breakdowns.per_datapoint(p, test.labels, test.excluded) for p in seeds]
    np.testing.assert_allclose(method.figures, np.mean(figures, axis=0))
    np.testing.assert_allclose(method.by_bin.sum(1), method.figures[:, 2])
    np.testing.assert_array_equal(method.first, seeds[1][:, : sections.WIDTH])


def test_few_predictions_are_filled_with_none():
    rng = np.random.default_rng(0)
    test = random_split(rng, 8, 5)
    narrow = np.stack([rng.permutation(5)[:3] for _ in range(8)])
    method = Method.of("a", "A", [narrow], 0, test, np.ones(5, np.int64))
    assert (method.first[:, 3:] == -1).all() and method.first.shape == (8, sections.WIDTH)


def test_only_the_leader_of_a_line_is_bold():
    n, rng = 60, np.random.default_rng(1)
    test, frequency = random_split(rng, n, 25), np.ones(25, np.int64)
    right = test.labels.padded()
    right = np.pad(right, ((0, 0), (0, 12 - right.shape[1])), constant_values=-1)
    wrong = np.full_like(right, -1)
    good, bad = (Method.of(p, p, [f], 0, test, frequency) for p, f in (("g", right), ("b", wrong)))
    category = np.array(["x", "y"])[np.arange(n) % 2]
    for line in sections.by_category([bad, good], [bad, good], category)["lines"]:
        assert [cell["best"] for cell in line["cells"]] == [False, True]
    for line in sections.by_category([good, good], [good, good], category)["lines"]:
        assert not any(cell["best"] for cell in line["cells"])
    popularity = sections.by_popularity([bad, good], test, frequency)
    assert [line["total"]["best"] for line in popularity["lines"]] == [False, True]
    modality = sections.by_modality([bad, good], np.arange(n) % 2 > 0, np.ones(n))
    for line in modality["lines"]:
        assert [cell["best"] for cell in line["cells"]] == [False] * 3 + [True] * 3


def test_each_column_of_a_curve_is_drawn(tmp_path):
    (tmp_path / "a.csv").write_text("epoch,loss,valid_P@1\n1,2.0,10\n2,1.5,12\n")
    (tmp_path / "empty.csv").write_text("epoch,loss\n")
    files = {name: tmp_path / f"{name}.csv" for name in ("a", "empty", "missing")}
    assert [c["title"] for c in sections.curves(files)] == ["a: loss", "a: valid P@1"]
