"""All stages one after the other, in one process, under settings that the sample does not use."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from mufin.nn.embedding import Embedded
from mufin.params import Params, load_params
from pipeline import (
    curate,
    download,
    evaluate,
    finetune,
    index,
    precompute,
    pretrain,
    retrieve,
    transfer,
)
from tests.test_precompute import inside

QUICK = {
    "pretrain.epochs": 2,
    "pretrain.batch_size": 32,
    "finetune.epochs": 2,
    "finetune.batch_size": 32,
    "finetune.train_encoders": True,
}
TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "projection_dim": 24,
}


ROOT = Path(__file__).parents[2]
DECLARED = {
    n: s["params"]
    for n, s in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].items()
}


def leaves(kind: type, prefix: str = "") -> Iterator[tuple[type, str, str]]:
    """(dataclass, field, dotted name) of every single setting."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield kind, name, prefix + name


def recorded(monkeypatch) -> set[str]:
    """A set that gathers the settings which a stage reads after it has loaded (and checked) them all."""
    reads: set[str] = set()
    names: dict[type, dict[str, str]] = {}
    for kind, field, dotted in leaves(Params):
        if kind.__name__ != "Hnsw":  # stands in two sections
            names.setdefault(kind, {})[field] = dotted
    for kind, fields in names.items():

        def get(self, name, fields=fields):
            if name in fields:
                reads.add(fields[name])
            return object.__getattribute__(self, name)

        monkeypatch.setattr(kind, "__getattribute__", get)

    for stage in (
        download,
        curate,
        precompute,
        pretrain,
        retrieve,
        transfer,
        finetune,
        index,
        evaluate,
    ):

        def load(*args):
            loaded = load_params(*args)
            reads.clear()
            return loaded

        monkeypatch.setattr(stage, "load_params", load)
    return reads


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder.modalities": ["text"]},
        {"encoder.modalities": ["image"]},
        {"encoder.modalities": ["lexical"]},
        {
            "curate.split": "warm",
            "finetune.select": "valid",
            "retrieve.vectors": "vec",
            "encoder.projection": "maxpool",
        },
        {
            "pretrain.loss": "triplet",
            "pretrain.batching": "clusters",
            "transfer.free_vectors": "ridge",
            "attention.heads": 2,
        },
        {
            "pretrain.batching": "datapoints",
            "finetune.loss": "softmax",
            "finetune.candidates": "all",
            "evaluate.candidates": "all",
            "transfer.free_vectors": "centroid",
            "attention.gates": True,
        },
        {
            "retrieve.search": "hnsw",
            "index.search": "hnsw",
            "finetune.candidates": "all",
            "curate.max_products": 120,
        },
        {
            "finetune.loss": "softmax",
            "finetune.random_negatives": 8,
            "finetune.normalise_classifier": False,
            "seed": 3,
        },
        {"transfer.alpha": 1.0, "curate.split": "warm"},
        {
            "encoder.image.kind": "clip",
            "encoder.image.options": TOWER | {"patch_size": 16},
            "encoder.text.kind": "clip",
            "encoder.text.options": TOWER,
        },
        {
            "encoder.modalities": ["text", "image"],
            "encoder.text.kind": "visualbert",
            "attention.a_s": "none",
            "encoder.image.name": "resnet10t",
            "encoder.image.options": {},
            "finetune.train_encoders": False,
        },
    ],
    ids=lambda changes: ", ".join(f"{k}={v}" for k, v in changes.items()),
)
def test_every_setting_gives_full_predictions_of_unique_labels_and_each_stage_reads_declared_settings_alone(
    tmp_path, monkeypatch, changes
):
    reads = recorded(monkeypatch)
    with inside(tmp_path, **QUICK | changes):
        for stage in (
            download,
            curate,
            precompute,
            pretrain,
            retrieve,
            transfer,
            finetune,
            index,
            evaluate,
        ):
            reads.clear()
            stage.main()
            declared = DECLARED[stage.__name__.split(".")[1]]
            assert not {
                r for r in reads if not any(f"{r}.".startswith(f"{d}.") for d in declared)
            }, stage.__name__
        labels = pq.read_table("data/curated/labels.parquet").num_rows
        test = pq.read_table("data/curated/test.parquet").to_pylist()
        rows = pq.read_table("data/predictions/test.parquet")["labels"].to_pylist()
        most = min(100, labels)
        for asked, row in zip(test, rows):
            assert len(set(row)) == len(row) >= min(most, labels - len(asked["excluded"]))
            assert not set(row) & set(asked["excluded"])
        report = json.loads(Path("metrics/evaluate.json").read_text())
        assert ("image_only" in report["test"]) == (
            len(changes.get("encoder.modalities", "both")) > 1
        )
        assert all(rows["R@100"] > 0 for rows in report["test"].values())


def test_products_without_any_descriptor_have_empty_bags():
    nothing = Embedded(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int8),
        np.zeros(4, np.int64),
        np.zeros((3, 4), np.float32),
    )
    bags = nothing.bags(np.arange(3), "cpu")
    assert bags.rows.shape == (3, 1, 4) and not bags.mask.any() and not bags.rows.any()
