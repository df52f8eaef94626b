"""What a GPU must give; skipped, with its reason, where there is none."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from pipeline.ann import ExactNeighbours, LabelRows
from pipeline.nn.mufin import Bag
from pipeline.nn.scoring import cross_scores, label_side
from tests.bags import random_bag, shaken, tiny_mufin
from tests.projects import ROOT, run, small
from tests.test_pipeline import STAGES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def test_exact_search_gives_the_labels_of_the_cpu():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 32)).astype(np.float32)
    rows = LabelRows(points / np.linalg.norm(points, axis=1, keepdims=True), rng.integers(900, size=4000), 900)
    here, there = (ExactNeighbours(rows, device).search(rows.rows[:50], 100) for device in (CPU, GPU))
    assert there[1] == pytest.approx(here[1], abs=1e-5)
    assert (here[0] == there[0]).mean() > 0.99          # scores within rounding of one another may change places


def test_scores_of_all_pairs_are_those_of_the_cpu():
    model = shaken(tiny_mufin()).eval()
    x, z = random_bag(9, 3, model.dim, 1, torch.float32), random_bag(17, 4, model.dim, 2, torch.float32)
    w = torch.nn.functional.normalize(torch.randn(17, model.dim), dim=-1)
    here = cross_scores(model, x, label_side(model, z, w)).detach()
    model.to(GPU)
    x, z = (Bag(b.rows.to(GPU), b.modality.to(GPU)) for b in (x, z))
    there = cross_scores(model, x, label_side(model, z, w.to(GPU))).detach().cpu()
    assert torch.allclose(here, there, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_stages_run_on_the_gpu_and_say_so(tmp_path, precision):
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    small(tmp_path)
    for stage in STAGES:
        done = run(tmp_path, sys.executable, "-m", f"pipeline.{stage}", MUFIN_DEVICE="cuda", MUFIN_PRECISION=precision)
        assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads((tmp_path / "metrics/pretrain.json").read_text())
    assert facts["device"].startswith("cuda") and facts["peak_gpu_memory_mb"] > 0
    figures = json.loads((tmp_path / "metrics/evaluate.json").read_text())["test"]["mufin"]
    assert all(0 <= value <= 100 for value in figures.values())
