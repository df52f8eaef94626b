"""Relations from ratings, split by time: MUFIN beside popular labels and nearest neighbours.

python -m benchmarks.behaviour.run --seeds 0,1,2 --out benchmarks/results/behaviour.json

Each seed invents a catalog and its ratings (`benchmarks.behaviour.ratings`), runs the ten stages
on them, and evaluates on the latest ratings. Known products take part in training; cold ones are
first rated later. The network's settings are those that the profile small-catalog first had, with
the encoders of the profile sample, which need no weights from a hub.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ruamel.yaml import YAML

from benchmarks.behaviour.ratings import write_catalog
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import write_json
from mufin.errors import MufinError
from mufin.evaluation.breakdowns import FIGURES, of_known_and_new

ROOT = Path(__file__).parents[2]
STAGES = (
    "download curate precompute pretrain retrieve transfer finetune index folds evaluate"
).split()
SETTINGS = {
    "download": {
        "source": "catalog",
        "location": "catalog.jsonl",
        "columns": {
            "id": "ASIN",
            "title": "title",
            "images": "images",
            "related": [],
            "category": "category",
            "attributes": [],
            "texts": [],
        },
        "interactions": {
            "location": "ratings.csv",
            "basket": "userId",
            "item": "movieId",
            "time": "timestamp",
            "weight": None,
        },
        "max_failed": 0.25,
    },
    "curate": {
        "split": "time",
        "interactions": {
            "score": "count",
            "min_support": 1.0,
            "per_product": 30,
            "per_basket": 100,
            "window": 0.1,
            "direction": "both",
            "half_life": None,
        },
    },
    "encoder": {
        "modalities": ["text", "image", "lexical"],
        "dim": 96,
        "image_dropout": 0.3,
        "lexical_dropout": 0.0,
        "descriptor_norm": False,
        "modality_dropout": 0.2,
        "image": {
            "kind": "timm",
            "name": "vit_tiny_patch16_224",
            "weights": "random",
            "options": {
                "img_size": 48,
                "patch_size": 16,
                "embed_dim": 384,
                "depth": 1,
                "num_heads": 6,
            },
            "size": 48,
            "trainable_blocks": 0,
            "self_supervised_epochs": 0,
            "self_supervised_lr": 0.002,
        },
        "lexical": {"ngrams": 2, "min_count": 2, "max_terms": 50_000},
    },
    "attention": {"a_s": "attention", "pool": "sum"},
    "pretrain": {
        "temperature": 0.15,
        "epochs": 30,
        "lexical_lr_factor": 10.0,
        "lexical_weight_decay": 0.0,
    },
    "transfer": {
        "a_c": "attention",
        "free_vectors": "centroid",
        "classifier": "mufin",
        "alpha": 0.2,
    },
    "finetune": {
        "loss": "softmax",
        "candidates": "all",
        "temperature": 0.05,
        "batch_size": 200,
        "epochs": 8,
        "lr": 0.001,
        "free_lr_factor": 1.0,
        "free_update": "rows",
        "lexical_lr_factor": 10.0,
        "lexical_weight_decay": 0.0,
    },
    "evaluate": {
        "mix": "chosen",
        "betas": [0.3, 0.5, 0.7, 0.85, 1.0],
        "candidates": "all",
        "frequency_weights": [0.0, 0.05, 0.1],
        "pair_weights": [0.0, 0.1, 0.2, 0.4],
    },
}
FROZEN = ("frozen_datapoints", "frozen_labels")  # of mufin.baselines
ROWS = {
    "mufin_chosen": "MUFIN, mix chosen on valid",
    "mufin_without_pairs": "MUFIN without the pairs of train",
    "mufin": "MUFIN, beta 0.7",
    "text_only": "titles alone",
    "image_only": "pictures alone",
    "train_pairs": "co-occurrence neighbours, then popular",
    "frozen_datapoints": "20 nearest datapoints, frozen encoders",
    "frozen_labels": "nearest labels, frozen encoders",
    "popular": "most popular",
}
GROUPS = ("known products", "cold products")
Figures = dict[str, dict[str, list[float]]]  # row, group, figures


def main(
    products: int = 3000,
    sessions: int = 4000,
    users: int = 1500,
    seeds: str = "0,1,2",
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Print the table, and write it as JSON."""
    found: list[Figures] = []
    for seed in map(int, seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found.append(_run(Path(folder), products, sessions, users, seed))
    table = {
        f"{ROWS[row]} / {group}": _spread([one[row][group] for one in found])
        for group in GROUPS
        for row in ROWS
        if all(group in one.get(row, {}) for one in found)
    }
    for name, (means, spreads) in table.items():
        print(f"{name:58s}" + "".join(f"{m:8.2f} ± {s:.2f}" for m, s in zip(means, spreads)))
    if out is not None:
        sizes = {"products": products, "sessions": sessions, "users": users, "seeds": seeds}
        rows = {n: dict(zip(FIGURES, zip(*figures))) for n, figures in table.items()}
        write_json(sizes | {"rows": rows}, out)


def _spread(values: list[list[float]]) -> tuple[list[float], list[float]]:
    """Means and standard deviations over seeds."""
    over = np.array(values)
    spread = over.std(0, ddof=1) if len(over) > 1 else np.zeros(over.shape[1])
    return over.mean(0).round(2).tolist(), spread.round(2).tolist()


def _run(folder: Path, products: int, sessions: int, users: int, seed: int) -> Figures:
    """The figures of all rows, by group, of one seed."""
    write_catalog(folder, products, sessions, users, seed)
    _write_settings(folder / "params.yaml", seed)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for stage in STAGES:
        command = [sys.executable, "-m", f"pipeline.{stage}"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise MufinError(f"the stage {stage} failed at seed {seed}; its error is above")
    found: Figures = {}
    with open(folder / "metrics/known.csv", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            figures = [float(line[name]) for name in FIGURES]
            found.setdefault(line["method"], {})[line["group"]] = figures
    return found | _frozen(folder, seed)


def _frozen(folder: Path, seed: int) -> Figures:
    """The rows of the frozen encoders, which the stage evaluate does not have."""
    import importlib

    import torch

    from mufin.baselines.shared.loading import task_of

    curated = folder / "data/curated"
    task = task_of(curated, folder / "data/precomputed", torch.device("cpu"), torch.float32)
    data, out = read_curated(curated), {}
    for row in FROZEN:
        predict = importlib.import_module(f"mufin.baselines.{row}").baseline(task, seed)
        groups = of_known_and_new(predict("test")[0], data, "test")
        out[row] = {name: values for name, _, values in groups}
    return out


def _write_settings(path: Path, seed: int) -> None:
    """params.yaml: SETTINGS, and all others as in the profile sample."""
    shutil.copy(ROOT / "params/sample.yaml", path)
    yaml = YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["seed"] = content["curate"]["seed"] = seed
    for section, settings in SETTINGS.items():
        content[section].update(settings)
    with open(path, "w", encoding="utf-8") as file:
        yaml.dump(content, file)


if __name__ == "__main__":
    from mufin import runtime

    runtime.run(main)
