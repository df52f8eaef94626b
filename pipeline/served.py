"""`models/index` on disk: what serving needs besides the members' weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from pipeline.ann import load_neighbours
from pipeline.artifacts import ArtifactError, publish, read_json, write_json
from pipeline.baselines.ridge import TitleRidge
from pipeline.recommender import augmented_rows, joint_rows
from pipeline.training.embedding import Embedded


@dataclass(frozen=True, slots=True)
class Index:
    """Fine-tuned labels: bags, classifiers, centroids and the search structure over them."""

    labels: list[Embedded]          # of each member
    classifiers: list[np.ndarray]   # w of each member, (L, D)
    centroids: np.ndarray           # (L, members x D)
    products: np.ndarray            # (L,) int64
    frequency: np.ndarray           # (L,) int64, train datapoints of each label
    neighbours: object              # .search(queries, k) -> (labels, similarity)
    ridge: TitleRidge | None        # where index.title_ridge is on


def save_index(index: Index, folder: Path) -> None:
    """Publish `index.safetensors`, `index.json` and, for HNSW, its graph."""
    tensors = {"centroids": index.centroids, "products": index.products, "frequency": index.frequency}
    for m, (embedded, w) in enumerate(zip(index.labels, index.classifiers)):
        tensors |= {f"{m}/rows": embedded.rows, f"{m}/modality": embedded.modality, f"{m}/offsets": embedded.offsets,
                    f"{m}/vectors": embedded.vectors, f"{m}/w": w}
    with publish(folder) as scratch:
        scratch.mkdir()
        save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, scratch / "index.safetensors")
        write_json({"members": len(index.labels), "search": type(index.neighbours).__name__}, scratch / "index.json")
        index.neighbours.save(scratch / "neighbours")
        if index.ridge is not None:
            index.ridge.save(scratch)


def load_index(folder: Path, device: torch.device) -> Index:
    """The index of `folder`; raises ArtifactError where it is missing."""
    facts = read_json(folder / "index.json")
    try:
        t = load_file(folder / "index.safetensors")
    except OSError as error:
        raise ArtifactError(f"{folder}/index.safetensors cannot be read ({error}); run `dvc repro index`") from None
    labels = [Embedded(*(t[f"{m}/{name}"] for name in ("rows", "modality", "offsets", "vectors")))
              for m in range(facts["members"])]
    rows = augmented_rows(joint_rows(labels), labels[0].offsets, t["centroids"])
    return Index(labels, [t[f"{m}/w"] for m in range(facts["members"])], t["centroids"], t["products"], t["frequency"],
                 load_neighbours(folder / "neighbours", rows, device), TitleRidge.load(folder))
