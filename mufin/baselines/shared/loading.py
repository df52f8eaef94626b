"""Builds the task of the baselines from the curated split and the frozen encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.files import artifact_json
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table
from mufin.baselines.shared.task import Descriptors, Task, no_attributes
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.sample_attributes import Attributes, attributes_of
from mufin.corpus.sample_pictures import KINDS
from mufin.errors import MufinError
from mufin.nn.encoded import encoder_outputs
from mufin.nn.vision_language import load_encoder
from mufin.ragged import Lists


def task_of(curated: Path, precomputed: Path, device: torch.device, precision: torch.dtype) -> Task:
    """The task that every baseline is given.

    The encoders of `precomputed` run when a baseline asks for descriptors. The attributes of the
    built-in sample are made anew, by the facts in data/raw, which lies beside `curated`.
    """
    data = read_curated(curated)
    table = read_table(curated / "products.parquet", "products")
    titles = np.array(table["title"].to_pylist(), dtype=object)
    products = {name: split.product for name, split in data.splits.items()}
    products["labels"] = data.labels

    def encode() -> Descriptors:
        arrays = frozen_descriptors(precomputed, device, precision)
        return {
            name: {kind: array[rows] for kind, array in arrays.items()}
            for name, rows in products.items()
        }

    def attributes() -> dict[str, Attributes]:
        every = sample_attributes(table, curated.parent / "raw/source.json")
        return {name: every.take(rows) for name, rows in products.items()}

    return Task(
        {name: titles[rows].tolist() for name, rows in products.items()},
        _truth(data),
        {name: split.excluded for name, split in data.splits.items()},
        encode,
        device,
        attributes,
    )


def sample_attributes(table: pa.Table, source: Path) -> Attributes:
    """The attributes of all products in `table`, data/curated/products.parquet.

    `source` is data/raw/source.json. Raises MufinError if it does not name the built-in sample, or
    one that has other products.
    """
    facts = artifact_json(source)
    if facts.get("source") != "sample":
        no_attributes()
    pictured = np.array([len(images) > 0 for images in table["images"].to_pylist()], bool)
    sample = facts["sample"]
    found = attributes_of(
        table["uid"].to_pylist(),
        table["title"].to_pylist(),
        pictured,
        sample["products"],
        sample["seed"],
    )
    names = [(category or [""])[-1].lower() for category in table["category"].to_pylist()]
    if names != [KINDS[kind].lower() for kind in found.codes["kind"]]:
        raise MufinError(
            f"the products of data/curated are not those of the sample in {source}; run `dvc repro`"
        )
    return found


def _truth(data: Curated) -> dict[str, Lists]:
    """Of train and valid, without filter pairs; not of test, which no baseline may see."""
    return {
        name: data.splits[name].labels.minus(data.splits[name].excluded)
        for name in ("train", "valid")
    }


def frozen_descriptors(
    precomputed: Path, device: torch.device, precision: torch.dtype
) -> dict[str, np.ndarray]:
    """{text, image}: (P, width) float32, each product's descriptors by the untrained encoders.

    The mean over pictures, zeros where there is none. A modality without an encoder in
    `precomputed` is left out.
    """
    out: dict[str, np.ndarray] = {}
    for name in ("text", "image"):
        stored = Precomputed(precomputed)
        if not stored.encoder(name).exists():
            continue
        store = DescriptorStore(precomputed, [name], device)
        encoder = load_encoder(stored.stored_encoder(name)).to(device).eval()
        rows = encoder_outputs(encoder, store, name, device, precision)
        out[name] = rows if name == "text" else _mean_of_pictures(rows, store)
    return out


def _mean_of_pictures(rows: np.ndarray, store: DescriptorStore) -> np.ndarray:
    lists = store.image_lists
    total = np.zeros((len(lists), rows.shape[1]), np.float32)
    np.add.at(total, lists.rows(), rows[lists.values])
    return total / np.maximum(lists.lengths(), 1)[:, None]
