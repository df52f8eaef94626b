"""The pipeline under DVC on a small sample: reproduced, a no-op, partly rerun, killed, resumed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from ruamel.yaml import YAML

from mufin.artifacts.files import read_json
from tests.support.projects import ROOT, ended, environment, run, small
from tests.support.stages import STAGES, stage


def ran(output: str) -> list[str]:
    return [s for s in STAGES if f"Running stage '{s}'" in output]


def test_repro_makes_full_predictions_and_every_metric(project):
    table = pq.read_table(project / "data/predictions/test.parquet")
    test = pq.read_table(project / "data/curated/test.parquet")
    labels = pq.read_table(project / "data/curated/labels.parquet").num_rows
    assert [str(f.type) for f in table.schema] == ["list<element: int32>", "list<element: float>"]
    assert table.num_rows == test.num_rows
    for row, score in zip(table["labels"].to_pylist(), table["score"].to_pylist()):
        assert len(set(row)) == len(row) == len(score) == min(100, labels)
        assert score == sorted(score, reverse=True)
    report = read_json(project / "metrics/evaluate.json")
    assert set(report) == {"test", "valid"} and all(len(f) <= 10 for f in report.values())
    with open(project / "metrics/methods.csv", newline="") as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    assert {path.stem for path in (project / "data/predictions/methods").iterdir()} == methods
    assert {"mufin", "mufin_chosen", "image_only", "module_1_bag", "popular", "ridge"} < methods
    assert read_json(project / "metrics/choices.json")["unseen"]["test"]["alpha_1"]["R@100"] > 0
    for name in STAGES:
        costs = read_json(project / f"metrics/runtime/{name}.json")
        assert {"seconds", "peak_memory_mb", "items_per_second"} <= set(costs), name


def test_metrics_agree_with_a_recount_of_the_predictions(project):
    predicted = pq.read_table(project / "data/predictions/test.parquet")["labels"].to_pylist()
    test = pq.read_table(project / "data/curated/test.parquet")
    truth = [
        set(t) - set(e) for t, e in zip(test["labels"].to_pylist(), test["excluded"].to_pylist())
    ]
    report = read_json(project / "metrics/evaluate.json")["test"]
    pairs = list(zip(predicted, truth))
    assert report["P@1"] == pytest.approx(100 * np.mean([p[0] in t for p, t in pairs]), abs=1e-3)
    assert report["P@5"] == pytest.approx(
        100 * np.mean([len(set(p[:5]) & t) / 5 for p, t in pairs]), abs=1e-3
    )
    assert report["R@10"] == pytest.approx(
        100 * np.mean([len(set(p[:10]) & t) / len(t) for p, t in pairs]), abs=1e-3
    )


def test_valid_and_test_products_are_not_in_train(project):
    def column(name):
        return set(pq.read_table(project / f"data/curated/{name}.parquet")["product"].to_pylist())

    assert not (column("valid") | column("test")) & (column("train") | column("labels"))


def test_a_second_repro_is_a_no_op(project):
    done = run(project, "dvc", "repro")
    assert done.returncode == 0 and not ran(done.stdout), done.stdout
    status = run(project, "dvc", "status")
    assert status.stdout.strip() == "Data and pipelines are up to date."
    assert run(project, "git", "status", "--porcelain").stdout == ""


def test_another_gamma_reruns_finetune_and_what_follows(project):
    done = run(project, "dvc", "exp", "run", "-S", "finetune.gamma=0.3")
    try:
        assert done.returncode == 0, done.stderr[-2000:]
        assert ran(done.stdout + done.stderr) == ["finetune", "index", "folds", "evaluate"]
        assert "WARNING" not in done.stdout + done.stderr
        shown = run(project, "dvc", "metrics", "diff")
        assert shown.returncode == 0, shown.stderr
        lines = shown.stdout.splitlines()
        assert 1 < len(lines) < 25 and lines[0].split()[:2] == ["Path", "Metric"]
        names = {tuple(line.split()[:2]) for line in lines[1:]}
        report = read_json(project / "metrics/evaluate.json")
        known = {f"{split}.{metric}" for split in report for metric in report[split]}
        assert {path for path, _ in names} == {"metrics/evaluate.json"}
        assert {metric for _, metric in names} <= known
        table = run(project, "dvc", "exp", "show", "--only-changed", "--drop", ".*/.*")
        assert "finetune.gamma" in table.stdout and "seed" not in table.stdout, table.stderr
        assert max(map(len, table.stdout.splitlines())) <= 200
    finally:
        run(project, "git", "checkout", "-q", ".")
        assert run(project, "dvc", "checkout").returncode == 0


def test_every_plot_of_dvc_yaml_is_drawn(project):
    done = run(project, "dvc", "plots", "show", "--out", "drawn")
    assert done.returncode == 0, done.stderr
    page = (project / "drawn/index.html").read_text()
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["plots"]
    titles = [settings["title"] for plot in plots for settings in plot.values()]
    assert len(set(titles)) == len(titles) >= 2
    assert [title for title in titles if title not in page] == []
    shutil.rmtree(project / "drawn")


@pytest.mark.parametrize(
    "stage, more", [("pretrain", {"pretrain.epochs": 16}), ("finetune", {"finetune.epochs": 16})]
)
def test_a_killed_repro_resumes_to_the_same_bytes(project, tmp_path, stage, more):
    folder = tmp_path / "killed"
    shutil.copytree(project, folder, symlinks=True)
    small(folder, **more)
    scratch = folder / f"scratch/{stage}"
    made = [
        folder / f"models/{stage}/member-0/model.safetensors",
        folder / f"metrics/{stage}.csv",
        folder / f"metrics/{stage}.json",
    ]
    done = run(folder, sys.executable, "-m", f"pipeline.{stage}")
    assert done.returncode == 0, done.stderr
    unbroken = [path.read_bytes() for path in made]
    assert not list(scratch.rglob("*.safetensors"))  # nothing is left to resume from
    killed = subprocess.Popen(
        ["dvc", "repro", "-s", stage],
        cwd=folder,
        start_new_session=True,
        env=environment(MUFIN_CHECKPOINT_SECONDS="0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not list(scratch.rglob("checkpoint.safetensors")):
        assert killed.poll() is None and time.monotonic() < end, "it finished before the kill"
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list(scratch.rglob("checkpoint.safetensors")), "the kill came too late to test anything"
    assert not made[0].exists()  # dvc removes what a stage will write
    done = run(folder, "dvc", "repro", "-s", stage)
    assert done.returncode == 0 and ran(done.stdout) == [stage], done.stdout + done.stderr
    assert [path.read_bytes() for path in made] == unbroken


def test_recommend_never_answers_with_the_product_itself(project):
    uids = pq.read_table(project / "data/curated/products.parquet")["uid"].to_pylist()
    words = [sys.executable, "-m", "mufin.cli", "recommend"]
    done = run(project, *words, uids[0], uids[7], "--k", "5")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["uid"] for a in answers] == [uids[0], uids[7]]
    for answer in answers:
        got = [r["uid"] for r in answer["recommended"]]
        assert len(set(got)) == 5 and set(got) <= set(uids) and answer["uid"] not in got
    wrong = run(project, *words, uids[0] + "x")
    assert wrong.returncode == 1 and "did you mean" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    "change, message",
    [
        ({"finetune.gamma": 7.0}, r"finetune.gamma is 7.0; a cosine margin"),
        (
            {"download.source": "catalog", "download.location": "nowhere.jsonl"},
            r"download.location names nowhere.jsonl, which ",
        ),
        (
            {"encoder.text.name": "no/such-model", "encoder.text.weights": "pretrained"},
            r"encoder.text.name is 'no/such-model'",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(project, tmp_path, change, message, monkeypatch, capsys):
    name = "precompute" if "encoder.text.name" in change else "download"
    folder = tmp_path / "wrong"
    folder.mkdir()
    shutil.copytree(project / "data", folder / "data", symlinks=True)
    small(folder, **change)
    before = sorted((p, p.stat().st_mtime_ns) for p in (folder / "data").rglob("*"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert re.search(message, ended(stage(name).main, monkeypatch, capsys))
    assert sorted((p, p.stat().st_mtime_ns) for p in (folder / "data").rglob("*")) == before
    assert not (folder / "metrics").exists()
