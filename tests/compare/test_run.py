"""`python -m compare.run`: the file that it writes, the stages that are missing, the estimate."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from compare.run import FACTORS, START, announced, duration, seconds, write_study
from compare.study import Study, baselines, read_study
from tests.support.projects import ROOT, environment

STUDY = Study(
    [0, 3], {"mufin": {}, "no_a_s": {"attention.a_s": "none"}}, {"mach": "MACH"}, {"popular": "P"}
)
SPENT = {"precompute": 5, "pretrain": 100, "retrieve": 7, "transfer": 1, "finetune": 60}
SPENT |= {"index": 2, "evaluate": 30}


@pytest.fixture
def home(tmp_path):
    """A project whose stages took the seconds of SPENT."""
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "metrics/runtime").mkdir(parents=True)
    for stage, spent in SPENT.items():
        (tmp_path / f"metrics/runtime/{stage}.json").write_text(json.dumps({"seconds": spent}))
    return tmp_path


def test_the_study_of_a_run_is_read_as_written(tmp_path):
    write_study(STUDY, tmp_path / "study.yaml")
    assert read_study(tmp_path / "study.yaml") == STUDY


def test_a_variants_estimate_is_that_of_its_stages(home):
    row = 1 + 60 + 2 + 30
    assert seconds(STUDY, "variant@mufin-0", home) == START + row
    assert seconds(STUDY, "variant@no_a_s-3", home) == START + 100 + 7 + row
    assert seconds(STUDY, "base@0", home) == START + 107
    assert seconds(STUDY, "base@3", home) == START + 112  # other random weights at another seed


def test_a_baselines_estimate_is_a_factor_of_the_training(home):
    assert seconds(STUDY, "baseline@mach-3", home) == START + FACTORS["mach"] * 160
    assert seconds(STUDY, "reference@popular", home) == START + FACTORS["popular"] * 160
    own = Study([0], {"mufin": {}}, {"mine": "Mine"}, {})
    assert seconds(own, "baseline@mine-0", home) == START + 160
    assert set(FACTORS) == set(baselines())


def test_an_earlier_run_of_a_row_gives_its_estimate(home):
    folder = home / "compare/results/mach@0"
    folder.mkdir(parents=True)
    (folder / "facts.json").write_text(json.dumps({"seconds": {"train": 20, "predict": 2}}))
    assert seconds(STUDY, "baseline@mach-3", home) == START + 22
    (folder / "facts.json").write_text(json.dumps({"failed": "gone"}))
    assert seconds(STUDY, "baseline@mach-3", home) == START + FACTORS["mach"] * 160


def test_the_estimate_says_that_it_is_one(home):
    said = announced(STUDY, ["variant@mufin-0", "reference@popular"], home)
    assert said.startswith("4 rows, seeds 0, 3: 2 runs, about 2 minutes (an estimate")
    assert announced(STUDY, [], home) == "4 rows, seeds 0, 3: all are up to date"


@pytest.mark.parametrize(
    "total, said",
    [(40, "40 seconds"), (130, "2 minutes"), (3600, "60 minutes"), (12000, "3 h 20 min")],
)
def test_a_duration_is_in_words(total, said):
    assert duration(total) == said


@pytest.mark.parametrize(
    "words, said",
    [
        (["--variants", "none.yaml"], "none.yaml is missing"),
        (["--seeds", "2", "2"], "seeds is [2, 2]"),
        (["--seeds", "-1"], "seeds is [-1]"),
    ],
)
def test_a_wrong_call_is_one_sentence(words, said):
    command = [sys.executable, "-m", "compare.run", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert said in done.stderr and done.stderr.count("\n") == 1
