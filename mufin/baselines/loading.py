"""The curated split and the frozen encoders as the rivals of `pipeline/baselines/` are given them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.tables import read_table
from mufin.baselines.task import Task
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.encoded import encoder_outputs
from mufin.nn.vision_language import load_encoder


def task_of(
    curated: Path, precomputed: Path | None, device: torch.device, precision: torch.dtype
) -> Task:
    """What every rival is given; `precomputed` None leaves the descriptors out."""
    data = read_curated(curated)
    titles = np.array(
        read_table(curated / "products.parquet", "products", ["title"])["title"].to_pylist(),
        dtype=object,
    )
    products = {name: split.product for name, split in data.splits.items()} | {
        "labels": data.labels
    }
    arrays = frozen_descriptors(precomputed, device, precision) if precomputed is not None else {}
    return Task(
        {name: titles[rows].tolist() for name, rows in products.items()},
        _truth(data),
        {name: split.excluded for name, split in data.splits.items()},
        {
            name: {kind: array[rows] for kind, array in arrays.items()}
            for name, rows in products.items()
        },
        device,
    )


def _truth(data: Curated) -> dict:
    """Without filter pairs; never test's."""
    return {
        name: data.splits[name].labels.minus(data.splits[name].excluded)
        for name in ("train", "valid")
    }


def frozen_descriptors(
    precomputed: Path, device: torch.device, precision: torch.dtype
) -> dict[str, np.ndarray]:
    """{text, image}: (P, width) float32, each product's descriptors by the encoders as Module I finds them, before any
    training; the mean over pictures, zeros where there is none."""
    out: dict[str, np.ndarray] = {}
    for name in ("text", "image"):
        if not (precomputed / "encoders" / name).exists():
            continue
        store = DescriptorStore(precomputed, [name], device)
        encoder = load_encoder(precomputed / "encoders" / name).to(device).eval()
        rows = encoder_outputs(encoder, store, name, device, precision)
        out[name] = rows if name == "text" else _mean_of_pictures(rows, store)
    return out


def _mean_of_pictures(rows: np.ndarray, store: DescriptorStore) -> np.ndarray:
    lists, counts = store.image_lists, np.diff(store.image_lists.offsets)
    total = np.zeros((len(lists), rows.shape[1]), np.float32)
    np.add.at(total, lists.rows(), rows[lists.values])
    return total / np.maximum(counts, 1)[:, None]
