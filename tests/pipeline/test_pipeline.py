"""The whole pipeline under DVC, on a small sample: reproduced, a no-op, rerun from a changed setting, killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import MufinError
from mufin.params import load_params
from mufin.serving.recommender import Recommender
from tests.support.projects import ROOT, environment, run, small

STAGES = [
    "download",
    "curate",
    "precompute",
    "pretrain",
    "retrieve",
    "transfer",
    "finetune",
    "index",
    "evaluate",
]


def ran(output: str) -> list[str]:
    return [s for s in STAGES if f"Running stage '{s}'" in output]


def test_repro_makes_predictions_of_the_fixed_form_and_every_metric(project):
    table = pq.read_table(project / "data/predictions/test.parquet")
    test = pq.read_table(project / "data/curated/test.parquet")
    labels = pq.read_table(project / "data/curated/labels.parquet").num_rows
    assert [str(f.type) for f in table.schema] == ["list<element: int32>", "list<element: float>"]
    assert table.num_rows == test.num_rows
    for row, score in zip(table["labels"].to_pylist(), table["score"].to_pylist()):
        assert len(set(row)) == len(row) == len(score) == min(100, labels)
        assert score == sorted(score, reverse=True)
    report = json.loads((project / "metrics/evaluate.json").read_text())
    methods = {
        "mufin",
        "mufin_chosen",
        "mufin_without_ridge",
        "mufin_rare_and_popular",
        "alpha_1",
        "text_only",
        "image_only",
        "module_1_bag",
        "module_1_vec",
        "popular",
        "tfidf_datapoints",
        "ridge",
    }
    for split in ("valid", "test"):
        assert (
            set(report[split])
            == methods
            == {f.stem for f in (project / "data/predictions/methods").iterdir()}
        )
        for figures in report[split].values():
            assert {
                "P@1",
                "P@5",
                "nDCG@5",
                "R@10",
                "R@100",
                "PSP@5",
                "PSnDCG@5",
                "AUC@100",
                "tail R@10",
            } <= set(figures)
            assert all(0 <= v <= 100 for v in figures.values())
    assert report["split"] == "cold" and report["unseen"]["test"]["alpha_1"]["R@100"] > 0
    for stage in STAGES:
        facts = json.loads((project / f"metrics/{stage}.json").read_text())
        assert {"seconds", "peak_memory_mb", "items_per_second"} <= set(facts), stage


def test_metrics_agree_with_a_recount_of_the_predictions(project):
    predicted = pq.read_table(project / "data/predictions/test.parquet")["labels"].to_pylist()
    test = pq.read_table(project / "data/curated/test.parquet")
    truth = [
        set(t) - set(e) for t, e in zip(test["labels"].to_pylist(), test["excluded"].to_pylist())
    ]
    report = json.loads((project / "metrics/evaluate.json").read_text())["test"]["mufin_chosen"]
    assert report["P@5"] == pytest.approx(
        100 * np.mean([len(set(p[:5]) & t) / 5 for p, t in zip(predicted, truth)]), abs=1e-3
    )
    assert report["R@10"] == pytest.approx(
        100 * np.mean([len(set(p[:10]) & t) / len(t) for p, t in zip(predicted, truth)]), abs=1e-3
    )


def test_no_product_of_valid_or_test_is_a_label_or_a_train_datapoint(project):
    def column(name):
        return set(pq.read_table(project / f"data/curated/{name}.parquet")["product"].to_pylist())

    assert not (column("valid") | column("test")) & (column("train") | column("labels"))


def test_a_second_repro_is_a_no_op(project):
    done = run(project, "dvc", "repro")
    assert done.returncode == 0 and not ran(done.stdout), done.stdout


def test_an_experiment_with_another_gamma_reruns_finetune_and_what_follows_alone(project):
    done = run(project, "dvc", "exp", "run", "-S", "finetune.gamma=0.3")
    assert done.returncode == 0, done.stderr[-2000:]
    assert ran(done.stdout + done.stderr) == ["finetune", "index", "evaluate"]
    shown = run(project, "dvc", "metrics", "diff", "--json")
    assert shown.returncode == 0 and "metrics/evaluate.json" in shown.stdout
    run(project, "git", "checkout", "-q", ".")
    assert run(project, "dvc", "checkout").returncode == 0


def test_plots_are_drawn_from_the_training_curves(project):
    done = run(project, "dvc", "plots", "show", "--out", "drawn")
    assert done.returncode == 0, done.stderr
    page = (project / "drawn/index.html").read_text()
    assert all(
        title in page
        for title in ("Module I, loss", "Module IV, loss", "made of five bins of popularity")
    )
    shutil.rmtree(project / "drawn")


@pytest.mark.parametrize(
    "stage, more", [("pretrain", {"pretrain.epochs": 40}), ("finetune", {"finetune.epochs": 40})]
)
def test_a_repro_killed_in_the_middle_goes_on_to_the_bytes_of_an_unbroken_run(
    project, tmp_path, stage, more
):
    folder = tmp_path / "killed"
    shutil.copytree(project, folder, symlinks=True)
    small(folder, **more)
    model, scratch = (
        folder / f"models/{stage}/member-0/model.safetensors",
        folder / f"scratch/{stage}",
    )
    done = run(folder, sys.executable, "-m", f"pipeline.{stage}")
    assert done.returncode == 0, done.stderr
    unbroken, curve = model.read_bytes(), (folder / f"metrics/{stage}.csv").read_text()
    assert not list(scratch.rglob("*.safetensors"))  # nothing is left to resume from
    killed = subprocess.Popen(
        ["dvc", "repro", "-s", stage],
        cwd=folder,
        start_new_session=True,
        env=environment() | {"MUFIN_CHECKPOINT_SECONDS": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not list(scratch.rglob("checkpoint.safetensors")):
        assert killed.poll() is None and time.monotonic() < end, (
            "finished before it could be killed"
        )
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list(scratch.rglob("checkpoint.safetensors")), "the kill came too late to test anything"
    assert not model.exists()  # dvc removes what a stage will write
    done = run(folder, "dvc", "repro", "-s", stage)
    assert done.returncode == 0 and ran(done.stdout) == [stage], done.stdout + done.stderr
    assert model.read_bytes() == unbroken
    assert (folder / f"metrics/{stage}.csv").read_text() == curve


def test_recommend_answers_with_products_of_the_catalog_and_never_the_product_itself(project):
    uids = pq.read_table(project / "data/curated/products.parquet")["uid"].to_pylist()
    done = run(
        project, sys.executable, "-m", "pipeline.cli", "recommend", uids[0], uids[7], "--k", "5"
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["uid"] for a in answers] == [uids[0], uids[7]]
    for answer in answers:
        got = [r["uid"] for r in answer["recommended"]]
        assert len(set(got)) == 5 and set(got) <= set(uids) and answer["uid"] not in got
    wrong = run(project, sys.executable, "-m", "pipeline.cli", "recommend", uids[0] + "x")
    assert (
        wrong.returncode == 1 and "did you mean" in wrong.stderr and "Traceback" not in wrong.stderr
    )


def test_a_product_given_by_title_and_pictures_is_answered_like_the_same_product_of_the_catalog(
    project, monkeypatch
):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    products = pq.read_table(project / "data/curated/products.parquet").to_pylist()
    images = pq.read_table(project / "data/raw/images").to_pydict()
    content = dict(zip(images["key"], images["bytes"]))
    served = Recommender(load_params(project / "params.yaml"), project)
    asked = [p for p in products[:40] if p["title"] and p["images"]][:8]
    known = served.recommend([p["uid"] for p in asked], k=20)
    fresh = served.recommend_new(
        [p["title"] for p in asked], [[content[k] for k in p["images"]] for p in asked], k=21
    )
    for product, a, b in zip(asked, known, fresh):
        scores = {r["uid"]: r["score"] for r in b}
        mine = [r for r in a if r["uid"] in scores]
        assert len(mine) >= 18 and product["uid"] not in {r["uid"] for r in a}
        assert [scores[r["uid"]] for r in mine] == pytest.approx(
            [r["score"] for r in mine], abs=2e-3
        )
    assert len(served.recommend_new(["", "no such words"], [[], []], k=5)[0]) == 5
    with pytest.raises(MufinError, match="gives no image"):
        served.recommend_new(["mug"], [[b"no picture"]])


def test_inputs_held_on_the_device_give_the_batches_of_the_memory_mapped_ones(project):
    mapped, held = (
        DescriptorStore(project / "data/precomputed", ["text", "image"]) for _ in range(2)
    )
    held.images = torch.from_numpy(np.concatenate(held.images.shards))
    held.text = torch.from_numpy(np.concatenate(held.text.shards))
    products = np.random.default_rng(0).permutation(mapped.num_products)[:50]
    a, b = mapped.batch(products), held.batch(products)
    for name in (
        "modality",
        "text",
        "text_lengths",
        "text_bag",
        "images",
        "image_bag",
        "image_row",
    ):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize(
    "change, message",
    [
        ({"finetune.gamma": 7.0}, "finetune.gamma is 7.0; a cosine margin"),
        (
            {"download.source": "catalog", "download.location": "nowhere.jsonl"},
            "nowhere.jsonl, which is not there",
        ),
        (
            {"encoder.text.name": "no/such-model", "encoder.text.weights": "pretrained"},
            "encoder.text.name is 'no/such-model'",
        ),
    ],
)
def test_what_a_person_can_mend_is_one_sentence_with_exit_code_one(
    project, tmp_path, change, message
):
    stage = "precompute" if "encoder.text.name" in change else "download"
    folder = tmp_path / "wrong"
    folder.mkdir()
    shutil.copytree(project / "data", folder / "data", symlinks=True)
    small(folder, **change)
    before = sorted((p, p.stat().st_mtime_ns) for p in (folder / "data").rglob("*"))
    done = run(
        folder, sys.executable, "-m", f"pipeline.{stage}", PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1"
    )
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, (
        done.stderr[-1500:]
    )
    assert sorted((p, p.stat().st_mtime_ns) for p in (folder / "data").rglob("*")) == before
