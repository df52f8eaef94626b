"""Modules I to IV on the built-in sample at its own settings: the stages themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell
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
    """Seconds of each stage from the sample's pictures to a fine-tuned network, and what it learnt."""
    home = at.folder / "sample"
    home.mkdir()
    with contextlib.chdir(home):
        _settings(at, home / "params.yaml")
        params = load_params()
        download.main()
        write_curated(params, Path("data/raw"), Path("data/curated"))
        for name, stage in STAGES.items():
            stage.main()
            facts = read_json(Path(f"metrics/{name}.json"))
            tell(
                Row(figure=f"sample, {name}", value=facts["seconds"], unit="s", note=_learnt(facts))
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _learnt(facts: dict) -> str:
    wanted = {
        "loss": "last epoch's loss",
        "test_recall": "percent of true labels in test shortlists",
    }
    return "; ".join(f"{text} {facts[name]:.4g}" for name, text in wanted.items() if name in facts)


def _settings(at: Place, path: Path) -> None:
    """The sample's own settings, as JSON: the GPU machine has no reader of YAML 1.2."""
    settings = dataclasses.asdict(catalog.profile("sample", at.folder))
    if at.tiny:
        settings["download"]["sample"]["products"] = SMALL["products"]
        settings["pretrain"]["epochs"] = settings["finetune"]["epochs"] = SMALL["epochs"]
    path.write_text(json.dumps(settings))


def write_curated(params: Params, raw: Path, out: Path) -> None:
    """What curate makes of the sample's raw files, without polars, which the GPU machine lacks.

    Enough for the sample: a test compares it with curate's own files.
    """
    out.mkdir(parents=True)
    rows = read_table(raw / "products.parquet", "raw_products").to_pylist()
    log = read_table(raw / "image_log.parquet", "image_log").to_pylist()
    key_of = {line["url"]: line["key"] for line in log if line["key"]}
    for row in rows:
        row["title"] = clean_title(row["title"])
        row["images"] = list(dict.fromkeys(key_of[url] for url in row["images"] if url in key_of))
    # some ids come twice: the row with more to show speaks for the product, both rows' relations count
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


def _column(lists: Lists) -> pa.Array:
    return lists.to_arrow(pa.int32())
