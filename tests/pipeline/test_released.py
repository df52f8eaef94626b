"""The profile of the released recipe: its numbers, and all stages with small encoders."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from mufin.artifacts.files import read_json
from mufin.profiles import read_profile, settings_of
from tests.support.stages import STAGES, inside, run_stages

SMALLER = {  # of the profile's settings: data, encoders and the length of the run
    "encoder.dim": 16,
    "encoder.modalities": ["text", "image"],
    "encoder.image.trainable_blocks": "all",
    "pretrain.batch_size": 32,
    "pretrain.epochs": 4,
    "pretrain.random_epochs": 2,
    "pretrain.refresh_epochs": 1,
    "finetune.batch_size": 32,
    "finetune.epochs": 2,
}


def recipe() -> dict[str, object]:
    """The settings of the profile, without those of data and encoders."""
    left_out = ("download.", "curate.", "encoder.image.", "encoder.text.", "encoder.lexical.")
    settings = settings_of(read_profile("released"))
    return {n: v for n, v in settings.items() if not n.startswith(left_out)} | SMALLER


def test_the_profile_has_the_numbers_of_the_released_recipe():
    p = read_profile("released")
    e, m, f = p.encoder, p.pretrain, p.finetune
    assert (e.dim, e.projection, e.image.trainable_blocks) == (192, "two_layers", "all")
    assert "patch16" in e.image.name and e.image.size == 128
    assert (m.loss, m.gamma, m.negatives, m.hard_positives) == ("triplet", 0.3, 10, False)
    assert (m.negative_weights, m.temperature) == ("softmax", 0.1)
    assert (m.batching, m.random_epochs, m.epochs) == ("datapoint_clusters", 20, 300)
    for section in (m, f):
        assert (section.schedule, section.warmup_iterations) == ("linear", "epoch")
    rates = f.lr, f.lr * f.attention_lr_factor, f.lr * f.free_lr_factor
    assert rates == pytest.approx((1e-5, 1e-4, 1e-3))
    assert (p.retrieve.vectors, f.positives_from) == ("vec", "shortlist")


def test_the_papers_profiles_have_49_patches():
    for name in ("paper", "mm-amazontitles-300k"):
        image = read_profile(name).encoder.image
        assert "patch32" in image.name and image.size == 224 == 7 * 32


def test_all_stages_run_with_the_released_recipe(tmp_path, capsys):
    with inside(tmp_path, **recipe()) as home:
        run_stages(home)
    labels = pq.read_table(home / "data/curated/labels.parquet").num_rows
    rows = pq.read_table(home / "data/predictions/test.parquet")["labels"].to_pylist()
    assert rows and all(len(set(row)) == len(row) <= min(100, labels) for row in rows)
    for stage in ("pretrain", "finetune"):
        member = home / f"models/{stage}/member-0"
        assert read_json(member / "model.json")["projection"] == "two_layers"
        weights = load_file(member / "model.safetensors")
        for name in ("text", "image"):
            first = weights[f"projections.{name}.linear.first.parametrizations.weight.original"]
            assert first.shape == (round((24 * 16) ** 0.5), 24) and np.isfinite(first).all()
    with open(home / "metrics/pretrain.csv", newline="") as file:
        curve = [{n: float(v) for n, v in row.items()} for row in csv.DictReader(file)]
    assert len(curve) == 4 and all(0 <= row["squared_mean"] <= 1 for row in curve)
    assert set(STAGES) == {path.stem for path in (home / "metrics/runtime").glob("*.json")}


def test_a_contracted_space_is_said_once_with_the_remedy(tmp_path, capsys):
    changes = recipe() | {
        "members": 2,
        "pretrain.epochs": 8,
        "pretrain.negatives": 3,
        "pretrain.negative_weights": "equal",
        "pretrain.batching": "labels",
        "pretrain.lr": 0.005,
    }
    with inside(tmp_path, **changes) as home:
        run_stages(home, last="pretrain")
    said = [line for line in capsys.readouterr().err.splitlines() if "squared length" in line]
    assert len(said) == 1 and "set pretrain.loss: soft_triplet or softmax" in said[0]
