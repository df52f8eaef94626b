"""Module II: augmented retrieval of each datapoint's shortlist (MUFIN Sec. 3.1).

python -m pipeline.retrieve
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline import runtime
from pipeline.ann import LabelRows, build_neighbours
from pipeline.artifacts import ArtifactError, publish, write_ranking
from pipeline.inputs import Curated, open_store, read_curated
from pipeline.model_files import load_members
from pipeline.params import Params, load_params
from pipeline.ragged import Lists
from pipeline.recommender import augmented_rows, embed_members, joint_rows, joint_vectors
from pipeline.training.embedding import centroids


def main(
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    model: Path = Path("models/pretrain"),
    embeddings: Path = Path("data/embeddings/pretrain.safetensors"),
    shortlists: Path = Path("data/shortlists"),
    metrics: Path = Path("metrics/retrieve.json"),
):
    """Module II: one query a datapoint over all bag rows and centroids of the labels."""
    params, data = load_params(), read_curated(curated)
    with runtime.measured(metrics) as report:
        vectors = _embeddings(load_members(model, precomputed), open_store(precomputed, params), data)
        found = search(vectors, params, params.retrieve.vectors, dict.fromkeys(data.splits))
        with publish(embeddings) as scratch:
            save_file(vectors, scratch)
        with publish(shortlists) as folder:
            folder.mkdir()
            for name, (labels, similarity) in found.items():
                write_ranking(labels, similarity, folder / f"{name}.parquet", "shortlist")
        report["items"] = sum(len(v[0]) for v in found.values())
        for name, (labels, _) in found.items():
            report[f"{name}_recall"] = round(_recall(labels, data.splits[name].labels), 2)


def _embeddings(members, store, data: Curated) -> dict[str, np.ndarray]:
    """Module I's view of all labels and datapoints (docs/architecture.md, data/embeddings)."""
    device, precision = runtime.device(), runtime.precision()
    labels = embed_members(members, store, data.labels, device, precision)
    out = {"label_rows": joint_rows(labels), "label_offsets": labels[0].offsets, "label_vectors": joint_vectors(labels)}
    for name, split in data.splits.items():
        out[name] = joint_vectors(embed_members(members, store, split.product, device, precision))
    out["centroids"] = centroids(out["train"], data.train.labels.transpose(len(data.labels)))
    return {name: np.ascontiguousarray(array) for name, array in out.items()}


def read_embeddings(path: Path) -> dict[str, np.ndarray]:
    """What `retrieve` wrote; raises ArtifactError where it is missing."""
    if not path.exists():
        raise ArtifactError(f"{path} is missing; run `dvc repro retrieve` first")
    return load_file(path)


def search(vectors: dict[str, np.ndarray], params: Params, kind: str, excluded: dict[str, Lists | None]):
    """{split: (labels (n, K) int, -1 padded, similarity (n, K))} over bag rows and centroids, or over z^1 (`vec`).

    For the splits that `excluded` names, without the labels that it lists for a datapoint (None: all labels).
    """
    if kind == "vec":
        z = vectors["label_vectors"]
        rows = LabelRows(z, np.arange(len(z)), len(z))
    else:
        rows = augmented_rows(vectors["label_rows"], vectors["label_offsets"], vectors["centroids"])
    s = params.retrieve
    neighbours = build_neighbours(rows, s.search, m=s.hnsw.m, ef_construction=s.hnsw.ef_construction, ef=s.hnsw.ef,
                                  device=runtime.device(), seed=params.seed)
    k = min(s.shortlist, rows.num_labels)
    return {name: neighbours.search(vectors[name], k, lists) for name, lists in excluded.items()}


def _recall(labels: np.ndarray, truth: Lists) -> float:
    """Percent of true labels that are in the shortlist, over all pairs."""
    width = int(labels.max(initial=0)) + int(truth.values.max(initial=0)) + 2
    keys = (np.arange(len(labels))[:, None] * width + labels)[labels >= 0]
    return 100 * float(np.isin(truth.rows() * width + truth.values, keys).mean()) if len(truth.values) else 0.0


if __name__ == "__main__":
    runtime.run(main)
