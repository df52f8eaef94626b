"""The study on several splits: leads with clustered errors, and a run that goes on."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compare import splits
from compare.study import Study
from mufin.errors import MufinError
from tests.support.projects import ROOT
from tests.support.stages import QUICK, inside, run_stages

RUN = splits._run
STUDY = {"seeds": [5], "variants": {"mufin": {}}, "baselines": {}, "reference": {"popular": "best"}}
GAINS = st.lists(st.tuples(st.integers(0, 4), st.floats(-100, 100)), min_size=2, max_size=30)


@given(GAINS)
def test_the_error_equals_a_loop_over_clusters(gains):
    products, values = np.array([p for p, _ in gains]), np.array([v for _, v in gains])
    mean, error = splits.clustered(values, products)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    own = {p: [v - mean for q, v in gains if q == p] for p in products}
    if len(own) < 2:
        assert error == math.inf
        return
    squares = sum(sum(deviations) ** 2 for deviations in own.values())
    expected = math.sqrt(len(own) / (len(own) - 1) * squares) / len(gains)
    assert error == pytest.approx(expected, abs=1e-9)


def test_with_one_split_the_error_is_the_ordinary_one():
    gains = np.random.default_rng(0).normal(size=50)
    _, error = splits.clustered(gains, np.arange(50))
    assert error == pytest.approx(gains.std(ddof=1) / math.sqrt(50))


def test_the_same_products_in_five_splits_tell_no_more_than_once():
    gains = np.random.default_rng(0).normal(size=50)
    _, once = splits.clustered(gains, np.arange(50))
    _, five = splits.clustered(np.tile(gains, 5), np.tile(np.arange(50), 5))
    assert five == pytest.approx(once)


def test_leads_are_those_of_mufin_over_each_row():
    rows = [
        {"mufin": np.array([100.0, 0.0]), "popular": np.array([0.0, 0.0])},
        {"mufin": np.array([0.0, 0.0]), "popular": np.array([0.0, 100.0])},
    ]
    by_split = [
        (np.array(["a", "b"]), {row: dict.fromkeys(splits.METRICS, v) for row, v in each.items()})
        for each in rows
    ]
    report = splits.compared(Study(**STUDY), by_split)
    mufin, popular = report["rows"]
    assert mufin["metrics"]["P@1"] == [25.0, round(math.sqrt(1250), 4)] and mufin["lead"] == {}
    assert popular["lead"]["P@1"][0] == 0.0 and popular["lead"]["P@1"][2] == 1
    assert (report["datapoints"], report["products"], report["leads_of"]) == (4, 2, "MUFIN")


def test_leads_of_another_row_are_those_of_mufin_turned_round():
    rng = np.random.default_rng(1)
    by_split = [
        (
            np.arange(9),
            {row: {m: rng.random(9) for m in splits.METRICS} for row in ("mufin", "popular")},
        )
        for _ in range(3)
    ]
    study = Study(**STUDY)
    mine, theirs = splits.compared(study, by_split), splits.compared(study, by_split, "popular")
    assert theirs["leads_of"] == "best" and theirs["rows"][1]["lead"] == {}
    for m in splits.METRICS:
        lead, error, won = mine["rows"][1]["lead"][m]
        assert theirs["rows"][0]["lead"][m] == [-lead, error, 3 - won]
    with pytest.raises(MufinError, match="--of narrow is no row of these runs; there are mufin"):
        splits.compared(study, by_split, "narrow")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small sample, after the stage download, and a study of two rows."""
    folder = tmp_path_factory.mktemp("splits")
    with inside(folder, **QUICK) as place:
        run_stages(place, last="download")
        (place / "compare").mkdir()
        (place / "compare/variants.yaml").write_text(json.dumps(STUDY))
        (place / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
        yield place


def in_this_process(place: Path, module: str, *words: str) -> None:
    """Runs stages and variants here, as a start takes seconds; a baseline in its own process."""
    if module == "compare.baseline":
        return RUN(place, module, *words)
    print(f"split {place.name}: {' '.join([module, *words])}", file=sys.stderr)
    row = [words[0], int(words[1])] if words else []
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the table
        importlib.import_module(module).main(*row, place)


def test_each_split_is_run_once_and_then_compared(home, capsys, monkeypatch):
    monkeypatch.setattr(splits, "_run", in_this_process)
    splits.main([0, 1], None, home)
    said = capsys.readouterr()
    assert said.err.count("compare.variant mufin 0") == 2
    report = json.loads((home / "metrics/splits.json").read_text())
    assert [row["row"] for row in report["rows"]] == ["mufin", "mufin_chosen", *REST, "popular"]
    assert report["datapoints"] > report["products"]
    raw = [(home / splits.PLACE / s / "data/raw").resolve() for s in "01"]
    assert raw == [(home / "data/raw").resolve()] * 2
    splits.main([1, 0], None, home)
    again = capsys.readouterr()
    assert "compare." not in again.err
    assert [line.partition("|")[2] for line in again.out.splitlines()[4:]] == [
        line.partition("|")[2] for line in said.out.splitlines()[4:]
    ]


REST = ["mufin_rare_and_popular", "module_1_bag", "module_1_vec", "alpha_1_at_prediction"]


def test_rows_of_other_settings_are_not_mixed_in(home):
    settings = home / splits.PLACE / "0/params.yaml"
    before = settings.read_text()
    settings.write_text(before + "\n# edited\n")
    with pytest.raises(MufinError, match="other settings; delete it"):
        splits.main([0], None, home)
    settings.write_text(before)


def test_an_unknown_row_and_a_repeated_split_are_refused(home):
    with pytest.raises(MufinError, match="narrow is no row of the study; there are mufin, popular"):
        splits.main([0], ["narrow"], home)
    with pytest.raises(MufinError, match="different numbers"):
        splits.main([0, 0], None, home)


def test_data_that_are_missing_are_named(tmp_path):
    Path(tmp_path / "compare").mkdir()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "compare/variants.yaml").write_text(json.dumps(STUDY))
    with pytest.raises(MufinError, match="data/raw is missing"):
        splits.main([0], None, tmp_path)
