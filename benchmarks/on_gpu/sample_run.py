"""The stages of Modules I to IV on the built-in sample at its own settings."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell
from mufin.artifacts.contents import seal
from mufin.artifacts.files import read_json
from mufin.artifacts.tables import read_table, write_table
from mufin.corpus.cleaning import best_rows, clean_relations, clean_title
from mufin.corpus.splits import cold_split
from mufin.params import Params, load_params
from mufin.ragged import Lists
from pipeline import download, finetune, precompute, pretrain, retrieve, transfer

STAGES = {
    "precompute": precompute,
    "pretrain": pretrain,
    "retrieve": retrieve,
    "transfer": transfer,
    "finetune": finetune,
}
SMALL = {"products": 120, "epochs": 2}  # of the tiny run


def sample(at: Place, tell: Tell) -> None:
    """Seconds of each stage from pictures to a fine-tuned network, and what the stage learnt."""
    home = at.folder / "sample"
    home.mkdir()
    os.environ["MUFIN_SCRATCH"] = str(at.folder / "scratch")
    _settings(at, home / "params.yaml")
    download.main(home)
    write_curated(load_params(home / "params.yaml"), home / "data/raw", home / "data/curated")
    for name, stage in STAGES.items():
        stage.main(home)
        seconds = read_json(home / f"metrics/runtime/{name}.json")["seconds"]
        tell(Row(figure=f"sample, {name}", value=seconds, unit="s", note=_learnt(home, name)))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _learnt(home: Path, stage: str) -> str:
    """The stage's metrics of what it learnt, in words; '' if it has none."""
    facts = read_json(home / f"metrics/{stage}.json")
    wanted = {
        "loss": "last epoch's loss",
        "test_recall": "percent of true labels in test shortlists",
    }
    return "; ".join(f"{text} {facts[name]:.4g}" for name, text in wanted.items() if name in facts)


def _settings(at: Place, path: Path) -> None:
    """The sample's own settings, as JSON: the GPU machine has no reader of YAML 1.2."""
    settings = dataclasses.asdict(catalog.profile("sample"))
    if at.tiny:
        settings["download"]["sample"]["products"] = SMALL["products"]
        settings["pretrain"]["epochs"] = settings["finetune"]["epochs"] = SMALL["epochs"]
    path.write_text(json.dumps(settings))


def write_curated(params: Params, raw: Path, out: Path) -> None:
    """`data/curated` of the sample's raw files, without polars, which the GPU machine lacks.

    It does only what the sample needs. A test compares the files with those of the stage curate.
    """
    out.mkdir(parents=True)
    rows = read_table(raw / "products.parquet", "raw_products").to_pylist()
    log = read_table(raw / "image_log.parquet", "image_log").to_pylist()
    key_of = {line["url"]: line["key"] for line in log if line["key"]}
    for row in rows:
        row["title"] = clean_title(row["title"])
        row["images"] = list(dict.fromkeys(key_of[url] for url in row["images"] if url in key_of))
    # some ids come twice: the product is the row with more descriptors, with both rows' relations
    _, group = np.unique([row["uid"] for row in rows], return_inverse=True)
    quality = np.array([bool(row["title"]) + bool(row["images"]) for row in rows], np.int8)
    chosen = np.sort(best_rows(group, quality))
    products = [rows[i] for i in chosen[quality[chosen] > 0]]
    number = {product["uid"]: i for i, product in enumerate(products)}
    pairs = [
        (number[row["uid"]], number[uid])
        for row in rows
        if row["uid"] in number
        for uid in row["related"]
        if uid in number
    ]
    relations, _ = clean_relations(*np.array(pairs, np.int64).T, len(products))
    s = params.curate
    made = cold_split(relations, s.test, s.valid, np.random.default_rng([s.seed, 0]))
    columns = {name: [p[name] for p in products] for name in ("uid", "title", "images", "category")}
    write_table(columns, "products", out / "products.parquet")
    write_table({"product": made.labels.astype(np.int32)}, "labels", out / "labels.parquet")
    for name, split in made.rows.items():
        write_table(
            {
                "product": split.product.astype(np.int32),
                "labels": _column(split.labels),
                "excluded": _column(split.excluded),
            },
            "split",
            out / f"{name}.parquet",
        )
    seal(out)


def _column(lists: Lists) -> pa.Array:
    return lists.to_arrow(pa.int32())
