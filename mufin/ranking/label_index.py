"""`models/index`: the label side of prediction, as Module IV left it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mufin.artifacts.files import ArtifactError, publish, read_json, write_json
from mufin.nn.embedding import Embedded, joint_rows
from mufin.ragged import Lists, offsets_of
from mufin.ranking.title_ridge import TitleRidge
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import ExactNeighbours
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.retrieval.neighbours import load_neighbours


@dataclass(frozen=True, slots=True)
class LabelIndex:
    """Bags, classifiers, centroids and the search structure of all labels."""

    labels: list[Embedded]  # by each member
    classifiers: list[np.ndarray]  # w by each member, (L, D)
    centroids: np.ndarray  # (L, members x D)
    products: np.ndarray  # (L,) int64
    frequency: np.ndarray  # (L,) int64, train datapoints of each label
    neighbours: ExactNeighbours | HnswNeighbours
    ridge: TitleRidge | None  # where index.title_ridge is on

    def __len__(self) -> int:
        return len(self.products)

    @property
    def log_frequency(self) -> np.ndarray:
        """(L,) float32, log(1 + train datapoints)."""
        return np.log1p(self.frequency).astype(np.float32)

    def labels_of(self, products: np.ndarray) -> Lists:
        """Row by row the label that is the product itself, where it is one: a product is no answer to itself."""
        order = np.argsort(self.products, kind="stable")
        place = np.minimum(np.searchsorted(self.products[order], products), max(len(order) - 1, 0))
        found = order[place]
        there = self.products[found] == products
        return Lists(offsets_of(there.astype(np.int64)), found[there])


def save_index(index: LabelIndex, folder: Path) -> None:
    """Publish `index.safetensors`, `index.json` and, for HNSW, its graph."""
    tensors = {
        "centroids": index.centroids,
        "products": index.products,
        "frequency": index.frequency,
    }
    for m, (embedded, w) in enumerate(zip(index.labels, index.classifiers)):
        tensors |= {
            f"{m}/rows": embedded.rows,
            f"{m}/modality": embedded.modality,
            f"{m}/offsets": embedded.offsets,
            f"{m}/vectors": embedded.vectors,
            f"{m}/w": w,
        }
    with publish(folder) as scratch:
        scratch.mkdir()
        save_file(
            {n: np.ascontiguousarray(t) for n, t in tensors.items()}, scratch / "index.safetensors"
        )
        facts = {"members": len(index.labels), "search": type(index.neighbours).__name__}
        write_json(facts, scratch / "index.json")
        index.neighbours.save(scratch / "neighbours")
        if index.ridge is not None:
            index.ridge.save(scratch)


def load_index(folder: Path, device: torch.device) -> LabelIndex:
    """The index of `folder`; raises ArtifactError where it is missing."""
    members = range(read_json(folder / "index.json")["members"])
    try:
        t = load_file(folder / "index.safetensors")
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{folder}/index.safetensors cannot be read ({error}); run `dvc repro index`"
        ) from None
    labels = [
        Embedded(*(t[f"{m}/{name}"] for name in ("rows", "modality", "offsets", "vectors")))
        for m in members
    ]
    rows = augmented_rows(joint_rows(labels), labels[0].offsets, t["centroids"])
    return LabelIndex(
        labels,
        [t[f"{m}/w"] for m in members],
        t["centroids"],
        t["products"],
        t["frequency"],
        load_neighbours(folder / "neighbours", rows, device),
        TitleRidge.load(folder),
    )
