"""The study on a small project: a change reruns its row alone, a crash costs one row."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from compare.rows import results
from compare.run import write_study
from compare.study import OF_MUFIN, read_study
from mufin.baselines.shared.tuning import BUDGET
from mufin.errors import MufinError
from tests.support.projects import commit, environment, run

BASELINES, REFERENCE = {"bonsai": "Bonsai", "xt": "XT"}, {"ridge": "ridge", "popular": "popular"}
# `mufin` predicts as one of these rows; pairs of train have no part in a cold split
ABSENT = {"mufin_chosen", "mufin_without_votes", "mufin_without_pairs"}
VARIANT = "no_a_c: {transfer.a_c: none}"
NEW = '''"""The labels in their order: a baseline that a user adds."""

import numpy as np


def baseline(task, seed):
    """Labels 0, 1, 2 ... for all datapoints."""

    def predict(split):
        n = len(task.titles[split])
        labels = np.broadcast_to(np.arange(100), (n, 100)).copy()
        return labels, np.broadcast_to(-np.arange(100.0, dtype=np.float32), (n, 100)).copy()

    return predict
'''


def narrow(folder: Path, line: str = VARIANT, **more: str) -> None:
    """variants.yaml with MUFIN, a variant, two baselines (and `more`) and two reference rows."""
    content = {
        "seeds": [0],
        "variants": {"mufin": {}} | YAML(typ="safe").load(line),
        "baselines": BASELINES | more,
        "reference": REFERENCE,
    }
    (folder / "compare/variants.yaml").write_text(json.dumps(content))


def study(folder: Path, *words: str, **changes: str) -> str:
    """What `python -m compare.run` prints, on stdout and on stderr."""
    done = run(folder, "python", "-m", "compare.run", *words, **changes)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def stages_run(said: str) -> set[str]:
    lines = [line for line in said.splitlines() if line.startswith("Running stage")]
    return {line.split("'")[1] for line in lines}


@pytest.fixture(scope="module")
def compared(project, tmp_path_factory) -> Path:
    """The small project with few rows, compared at two seeds; what was said is in told.txt."""
    folder = tmp_path_factory.mktemp("compared") / "project"
    shutil.copytree(project, folder, symlinks=True)
    narrow(folder)
    # a library that crashes as napkinXC may: the row is lost, the run is not
    crash = folder / "crash/napkinxc"
    crash.mkdir(parents=True)
    (crash / "__init__.py").write_text("")
    (crash / "models.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    commit(folder, "a comparison")
    told = study(folder, "--seeds", "0", "1", PYTHONPATH=str(folder / "crash"))
    (folder / "told.txt").write_text(told)
    return folder


def report(folder: Path) -> dict:
    return json.loads((folder / "metrics/compare.json").read_text())


def rows(folder: Path) -> dict[str, dict]:
    return {row["row"]: row for row in report(folder)["rows"]}


def test_the_table_has_every_row_with_its_figures(compared):
    found = rows(compared)
    assert set(found) == {"mufin", "no_a_c", *OF_MUFIN, *BASELINES, *REFERENCE} - ABSENT
    test = pq.read_table(compared / "data/curated/test.parquet")
    pairs = zip(test["labels"].to_pylist(), test["excluded"].to_pylist())
    truth = [set(labels) - set(excluded) for labels, excluded in pairs]
    for name in ("mufin", "no_a_c", "bonsai"):
        by_seed = []
        for seed in (0, 1):
            path = compared / f"compare/results/{name}@{seed}/test.parquet"
            predicted = pq.read_table(path)["labels"].to_pylist()
            by_seed.append([20 * len(set(p[:5]) & t) for p, t in zip(predicted, truth)])
        means = [np.mean(figures) for figures in by_seed]
        expected = [np.mean(means), statistics.stdev(means)]
        assert found[name]["metrics"]["P@5"] == pytest.approx(expected, abs=2e-3)
        both = np.mean(by_seed, 0)
        error = both.std(ddof=1) / np.sqrt(len(both))
        assert found[name]["standard_errors"]["P@5"] == pytest.approx(error, abs=2e-3)


def test_the_printed_table_has_titles_and_bold_figures(compared):
    told, bold = (compared / "told.txt").read_text(), report(compared)["bold"]
    found = rows(compared)
    assert all(f"| {row['title']}" in told for row in found.values())
    shown = re.findall(r"\*\*([\d.]+)(?: ± [\d.]+)?\*\*", told)
    leads = [found[name]["metrics"][m][0] for m, name in bold.items() if name]
    assert sorted(shown) == sorted(f"{value:.2f}" for value in leads) and shown
    assert "Bold: the row leads every other row" in told


def test_the_study_tells_its_time(compared):
    told = (compared / "told.txt").read_text()
    estimate = re.search(r"6 rows, seeds 0, 1: 12 runs, about .* \(an estimate", told)
    assert estimate and told.index("Running stage 'base@") > estimate.start()
    for row in ("base", "mufin", "no_a_c", "bonsai", "xt"):
        assert all(re.search(rf"(?m)^{row}, seed {seed}: \d+ s$", told) for seed in (0, 1)), row
    assert re.search(r"(?m)^popular, seed 0: \d+ s$", told)


def test_mufin_of_the_study_is_mufin_of_the_pipeline(compared):
    ours = pq.read_table(compared / "compare/results/mufin@0/test.parquet")
    assert ours.equals(pq.read_table(compared / "data/predictions/test.parquet"))
    figures = json.loads((compared / "metrics/evaluate.json").read_text())["test"]
    evaluated = {m: v for m, v in figures.items() if m in report(compared)["bold"]}
    found = rows(compared)["mufin"]["metrics"]
    first = {m: found[m][0] for m in evaluated}
    assert first != evaluated and len(evaluated) >= 5  # the study's is a mean over two seeds


def test_a_baseline_that_crashes_costs_its_row(compared):
    row = rows(compared)["xt"]
    assert not row["metrics"] and "seed 0: it crashed (SIGSEGV)" in row["failed"]
    told = (compared / "told.txt").read_text()
    assert "xt, seed 1, failed: it crashed (SIGSEGV)" in told
    assert "(cd compare && dvc repro -f -s baseline@xt-1)" in told


def test_every_other_baseline_beats_popularity(compared):
    found = rows(compared)
    for name in ("bonsai", "ridge"):
        assert found[name]["metrics"]["P@5"][0] > found["popular"]["metrics"]["P@5"][0], name


def test_a_baselines_facts_say_how_its_settings_were_chosen(compared):
    folder = compared / "compare/results"
    for name in ("bonsai", "ridge"):
        choice = json.loads((folder / f"{name}@0/facts.json").read_text())["settings"]
        first, *others = choice["tried"]
        assert len(others) == BUDGET - 1 and first["settings"] == choice["published"]
        ahead = [tried for tried in others if tried["lead"] > tried["standard_error"]]
        best = max([first, *ahead], key=lambda tried: sum(tried["valid"].values()))
        assert choice["chosen"] == best["settings"]
    assert "settings" not in json.loads((folder / "popular@0/facts.json").read_text())


def test_dvc_in_the_main_folder_does_not_know_the_study(compared, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(compared, folder, symlinks=True)
    shutil.rmtree(folder / "compare/results")
    for words in (
        ["dvc", "status"],
        ["dvc", "dag"],
        ["dvc", "exp", "run"],
        ["dvc", "status"],
        ["dvc", "metrics", "diff"],
    ):
        done = run(folder, *words)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "compare" not in done.stdout + done.stderr, words


def test_a_study_leaves_its_lock_and_small_files_to_git(compared):
    done = run(compared, "git", "status", "--porcelain", "--untracked-files=all")
    left = {line[3:] for line in done.stdout.splitlines()} - {"told.txt"}
    assert "compare/dvc.lock" in left and "metrics/compare.json" in left
    small = ("compare/dvc.lock", "compare/plots/", "metrics/")
    assert all(name.startswith(small) for name in left), left


def test_a_second_run_is_a_no_op(compared):
    said = study(compared, "--seeds", "0", "1")
    assert not stages_run(said) and "6 rows, seeds 0, 1: all are up to date" in said


def test_a_changed_line_or_new_baseline_is_one_row(compared, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(compared, folder, symlinks=True)
    (folder / "mufin/baselines/in_order.py").write_text(NEW)
    narrow(folder, "no_a_c: {transfer.a_c: none, finetune.gamma: 0.4}", in_order="labels in order")
    said = study(folder)  # the seed of the file, 0
    assert stages_run(said) == {"variant@no_a_c-0", "baseline@in_order-0", "table", "report"}
    row = rows(folder)["in_order"]
    assert row["title"] == "labels in order" and row["group"] == "Baselines" and row["metrics"]
    assert "| labels in order |" in said and report(folder)["seeds"] == [0]
    narrow(folder)  # the row that was there before comes from dvc's cache
    write_study(read_study(folder / "compare/variants.yaml"), folder / "compare/study.yaml")
    done = run(folder / "compare", "dvc", "repro", "variant@no_a_c-0")
    assert done.returncode == 0 and not stages_run(done.stdout), done.stdout + done.stderr
    before, after = (f / "compare/results/no_a_c@0/test.parquet" for f in (compared, folder))
    assert after.read_bytes() == before.read_bytes()


def test_an_incomplete_study_says_what_is_missing(compared, tmp_path):
    shutil.copytree(compared / "compare/results", tmp_path / "results")
    shutil.rmtree(tmp_path / "results/bonsai@1")
    asked = read_study(compared / "compare/study.yaml")
    with pytest.raises(MufinError, match="bonsai@1/facts.json is missing"):
        results(tmp_path / "results", asked)


def test_a_variant_whose_stage_fails_costs_its_row(compared, tmp_path):
    folder = copied(compared, tmp_path)
    (folder / "pipeline/transfer.py").write_text(
        "from mufin.errors import MufinError\ndef main(home): raise MufinError('gone')"
    )
    done = run(folder, "python", "-m", "compare.variant", "no_a_c", "1")
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "compare/results/no_a_c@1/facts.json").read_text())
    assert facts["failed"] == "gone"
    # nothing can be compared without MUFIN itself
    done = run(folder, "python", "-m", "compare.variant", "mufin", "1")
    assert done.returncode == 1 and "error: gone" in done.stderr and "Traceback" not in done.stderr


def test_a_broken_split_stops_the_run_in_one_sentence(compared, tmp_path):
    folder = copied(compared, tmp_path)
    before = (folder / "compare/results/popular@0/facts.json").read_bytes()
    (folder / "data/curated/train.parquet").unlink()
    done = run(folder, "python", "-m", "compare.baseline", "popular", "0")
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: ")
        and "train.parquet" in done.stderr
    )
    assert (folder / "compare/results/popular@0/facts.json").read_bytes() == before


def test_a_killed_variant_goes_on_to_the_same_predictions(compared, tmp_path):
    folder = copied(compared, tmp_path)
    target = folder / "compare/results/no_a_c@1/test.parquet"
    scratch = folder / "scratch/variant"
    before = target.read_bytes()
    shutil.rmtree(target.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "compare.variant", "no_a_c", "1"],
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not list(scratch.glob("*/models/finetune")):
        assert process.poll() is None and time.monotonic() < end, "it ended before the kill"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    # Module IV fails with this setting, if it runs: it does at seed 0, and not where it was done
    failing = {"MUFIN_CHECKPOINT_SECONDS": "never"}
    for seed in ("0", "1"):
        done = run(folder, "python", "-m", "compare.variant", "no_a_c", seed, **failing)
        assert done.returncode == 0, done.stderr
    fresh = json.loads((folder / "compare/results/no_a_c@0/facts.json").read_text())
    assert fresh["failed"].startswith("MUFIN_CHECKPOINT_SECONDS is 'never'")
    assert target.read_bytes() == before
    assert not list(scratch.iterdir())


def copied(compared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(compared, folder, symlinks=True, ignore=shutil.ignore_patterns(".dvc", ".git"))
    return folder
