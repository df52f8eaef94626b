"""Label bags, classifiers and the search structure as fine-tuned, ready to serve.

python -m pipeline.index
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline import runtime
from pipeline.ann import build_neighbours
from pipeline.artifacts import read_table
from pipeline.baselines.ridge import TitleRidge
from pipeline.inputs import Curated, open_store, read_curated
from pipeline.model_files import load_members
from pipeline.params import load_params
from pipeline.recommender import augmented_rows, embed_members, joint_rows, joint_vectors
from pipeline.served import Index, save_index
from pipeline.training.embedding import centroids


def main(
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    model: Path = Path("models/finetune"),
    out: Path = Path("models/index"),
    metrics: Path = Path("metrics/index.json"),
):
    """Embed all labels with the fine-tuned members and build the search structure over bags and centroids."""
    params, data = load_params(), read_curated(curated)
    members, store = load_members(model, precomputed), open_store(precomputed, params)
    device, precision, s = runtime.device(), runtime.precision(), params.index
    with runtime.measured(metrics) as report:
        labels = embed_members(members, store, data.labels, device, precision)
        train = joint_vectors(embed_members(members, store, data.train.product, device, precision))
        mu = centroids(train, data.train.labels.transpose(len(data.labels)))
        rows = augmented_rows(joint_rows(labels), labels[0].offsets, mu)
        neighbours = build_neighbours(rows, s.search, m=s.hnsw.m, ef_construction=s.hnsw.ef_construction, ef=s.hnsw.ef,
                                      device=device, seed=params.seed)
        frequency = np.bincount(data.train.labels.values, minlength=len(data.labels)).astype(np.int64)
        ridge = _ridge(s.title_ridge, curated, data) if s.title_ridge else None
        save_index(Index(labels, _classifiers(members, labels), mu, data.labels, frequency, neighbours, ridge), out)
        report |= {"items": len(rows.label), "labels": len(data.labels), "rows": len(rows.label),
                   "dim": rows.rows.shape[1], "search": type(neighbours).__name__}


def _ridge(penalty: float, curated: Path, data: Curated) -> TitleRidge:
    titles = read_table(curated / "products.parquet", "products")["title"].to_pylist()
    return TitleRidge.fit([titles[p] for p in data.train.product], data.train.labels, len(data.labels), penalty)


@torch.inference_mode()
def _classifiers(members, labels) -> list[np.ndarray]:
    """w of every label, (L, D) float32, for each member."""
    out = []
    for member, embedded in zip(members, labels):
        member.cpu()
        ids = torch.arange(len(embedded.vectors))
        out.append(member.classifier(ids, torch.from_numpy(embedded.vectors)).float().numpy())
    return out


if __name__ == "__main__":
    runtime.run(main)
