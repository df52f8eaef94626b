"""The benchmarks of a machine without a GPU run at small sizes; the table is that of the file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import classifier_update, prediction, run, scaling, training_step
from benchmarks.loglog import log_plot
from benchmarks.run import END, FIGURES, PAGE, RESULTS, RUNS, START, Figure, lines


def rows_of(path: Path) -> dict[str, dict[str, float]]:
    return json.loads(path.read_text())["rows"]


def test_an_update_of_each_kind_is_timed(tmp_path):
    out = tmp_path / "update.json"
    classifier_update.main(labels=300, dim=8, touched=20, repeats=1, dense=True, out=out)
    by_rows = {"by rows", "by rows, torch's SparseAdam"}
    assert set(rows_of(out)) == by_rows | {"dense", "dense, fused", "floor, dense"}
    assert all(row["ms"] > 0 for row in rows_of(out).values())


def test_a_training_step_is_timed_from_each_input(tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    training_step.main(labels=2, repeats=1, tiny=True, out=tmp_path / "step.json")
    found = rows_of(tmp_path / "step.json")
    assert found["from pixels"]["ratio"] == 1 and len(found) == 3


def test_prediction_is_timed_at_a_small_size(tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    prediction.main(labels=120, datapoints=8, tiny=True, out=tmp_path / "prediction.json")
    wanted = {figure.row for figure in FIGURES if figure.run == "prediction"}
    assert wanted <= set(rows_of(tmp_path / "prediction.json"))


def test_an_exponent_is_the_slope_between_the_largest():
    costs = {
        n: {"work": {"seconds": 1 + n**2, "starting": 1.0, "megabytes": 100.0}} for n in (1, 10, 40)
    }
    row = scaling._row("work", costs)
    assert row["exponent"] == pytest.approx(2) and row["exponent_mb"] == pytest.approx(0)
    for drawing in scaling.plots([1, 10, 40], costs).values():
        assert ElementTree.fromstring(drawing).tag.endswith("svg")


def test_names_of_lines_do_not_cover_each_other():
    lines_of = {f"line {n}": [(1, 1.0), (10, 1 + n / 1000)] for n in range(9)}
    root = ElementTree.fromstring(log_plot("title", "x", lines_of))
    texts = [t for t in root.iter() if t.tag.endswith("text") and t.text in lines_of]
    places = sorted(float(text.attrib["y"]) for text in texts)
    assert len(places) == 9 and min(b - a for a, b in zip(places, places[1:])) >= 12


def test_a_ratio_above_one_is_better(monkeypatch):
    monkeypatch.setattr(
        run,
        "FIGURES",
        [
            Figure("less", "a", "ours", "s", "s", ("plain", "plain", "s"), 4),
            Figure("more", "a", "ours", "s", "rows/s", ("plain", "plain", "s"), more=True),
            Figure("absent", "b", "ours", "s", "s", aim=2),
        ],
    )
    stored = {"a": {"rows": {"ours": {"s": 2.0}, "plain": {"s": 8.0}}}}
    assert list(lines(stored))[2:] == [
        "| less | 2 s | plain: 8 s | 4 | 4 |",
        "| more | 2 rows/s | plain: 8 rows/s | 0.25 |  |",
        "| absent | not measured | | | 2 |",
    ]


def test_the_table_of_the_page_is_that_of_the_figures():
    stored = json.loads((RESULTS / "cpu-2-cores.json").read_text())
    shown = PAGE.read_text().split(START)[1].split(END)[0].strip()
    assert shown == "\n".join(lines(stored))


def test_every_figure_is_of_a_benchmark_that_runs():
    assert {figure.run for figure in FIGURES} <= set(RUNS)
    assert all((Path(run.__file__).parent / f"{name}.py").exists() for name in RUNS)
