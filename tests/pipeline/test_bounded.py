"""The stage evaluate where nothing fits: blocks of labels and of datapoints, the same figures."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from mufin.artifacts.tables import read_ranking
from mufin.evaluation import scored
from mufin.ranking import scoring, title_ridge
from tests.support.stages import stage


def table(home: Path, name: str) -> list[list[str]]:
    return list(csv.reader((home / name).read_text().splitlines()))


def test_evaluate_in_blocks_gives_the_figures_of_one_pass(finished, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(finished, home, symlinks=True)
    monkeypatch.chdir(home)
    for name, value in (("DEVICE", "cpu"), ("WORKERS", "1"), ("SCRATCH", str(home / "scratch"))):
        monkeypatch.setenv(f"MUFIN_{name}", value)
    calls = []
    add = scoring._add_in_blocks
    monkeypatch.setattr(scoring, "_add_in_blocks", lambda *a: (calls.append(a[1]), add(*a)))
    monkeypatch.setattr(scoring, "HELD", 2**14)
    monkeypatch.setattr(scored, "CELLS", 2**9)
    monkeypatch.setattr(title_ridge, "CELLS", 2**9)
    stage("evaluate").main(home)
    assert len(calls) > 20  # blocks of datapoints, each of which had blocks of labels
    assert {len(labels.blocks(0)) > 1 for labels in calls} == {True}
    for name in ("methods", "popularity", "categories", "known"):
        mine, theirs = (table(at, f"metrics/{name}.csv") for at in (home, finished))
        assert len(mine) == len(theirs) and mine[0] == theirs[0]
        for found, wanted in zip(mine[1:], theirs[1:]):
            for one, other in zip(found, wanted):
                assert one == other or float(one) == pytest.approx(float(other), abs=0.01)
    predicted = [read_ranking(at / "data/predictions/test.parquet") for at in (home, finished)]
    assert (predicted[0] == predicted[1]).mean() > 0.999  # equal scores may change places
