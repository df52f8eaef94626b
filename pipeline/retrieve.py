"""Module II: retrieves the shortlist of each datapoint by augmented retrieval (MUFIN Sec. 3.1).

One process:  python -m pipeline.retrieve
Several GPUs: MUFIN_PROCESSES=<n> python -m pipeline.retrieve, or torchrun
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from mufin import devices, process_group, processes, runtime
from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.embeddings import PretrainEmbeddings, write_embeddings
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import write_ranking
from mufin.cluster.embedding import Asked, embed_on, embedding_cluster
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import load_members
from mufin.nn.embedding import (
    Embedded,
    centroids,
    embed_members,
    embed_vectors,
    joint_rows,
    joint_vectors,
)
from mufin.params import load_params
from mufin.ragged import Lists, is_in
from mufin.retrieval.augmented import searched_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours, is_exact, shared_search
from mufin.retrieval.recall import recall_facts


def main(home: runtime.Home = Path(".")) -> None:
    """Module II: one query per datapoint over all bag rows and centroids of the labels."""
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    s, device = params.retrieve, devices.device()
    process_group.start(device)
    first = process_group.rank() == 0
    with runtime.measured("retrieve", home) as report:
        embeddings = _embeddings(home, list(params.encoder.modalities), data)
        if first:
            write_embeddings(embeddings, home / "data/embeddings/pretrain.safetensors")
        rows = _rows(embeddings, s.vectors)
        exact = is_exact(rows, s.search, device)
        if not first and not exact:
            return  # one process builds the graph of HNSW, with its share of MUFIN_WORKERS
        neighbours = build_neighbours(
            rows,
            s.search,
            device=device,
            m=s.hnsw.m,
            ef_construction=s.hnsw.ef_construction,
            ef=s.hnsw.ef,
            seed=params.seed,
            threads=runtime.threads(s.hnsw.threads),
        )
        k = min(s.shortlist, len(data.labels))
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(publish(home / "data/shortlists")) if first else None
            for name, split in data.splits.items():
                queries = embeddings.datapoints(name)
                labels, similarity = (
                    shared_search(neighbours, queries, k, device)
                    if exact
                    else neighbours.search(queries, k)
                )
                if folder is None:
                    continue
                folder.mkdir(exist_ok=True)
                write_ranking(labels, similarity, folder / f"{name}.parquet", "shortlist")
                report.facts[f"{name}_recall"] = round(_recall(labels, split.labels), 2)
        if first:
            train = embeddings.datapoints("train")
            report.facts |= recall_facts("retrieve", neighbours, train, k, params.seed, device)
        report.items = sum(map(len, data.splits.values()))


def _embeddings(home: Path, modalities: list[str], data: Curated) -> PretrainEmbeddings:
    """All labels and datapoints as Module I embeds them."""
    labels, vectors = _embedded(home, modalities, data)
    mu = centroids(vectors["train"], data.train.labels.transpose(len(data.labels)))
    return PretrainEmbeddings(
        joint_rows(labels), labels[0].offsets, joint_vectors(labels), mu, **vectors
    )


def _embedded(
    home: Path, modalities: list[str], data: Curated
) -> tuple[list[Embedded], dict[str, np.ndarray]]:
    """The labels by each member, and the vectors of the datapoints of each split.

    They are embedded here, or on the cluster that the environment names.
    """
    products = {name: split.product for name, split in data.splits.items()}
    if (machines := embedding_cluster()) is not None:
        asked = {name: Asked("models/pretrain", rows) for name, rows in products.items()}
        of_labels = {"labels": Asked("models/pretrain", data.labels)}
        bags, found = embed_on(machines, home, modalities, of_labels, asked)
        return bags["labels"], {name: vectors for name, (vectors, _) in found.items()}
    precomputed, at = home / "data/precomputed", (devices.device(), devices.precision())
    members = load_members(home / "models/pretrain", Precomputed(precomputed), whole=False)
    networks = [member.network for member in members]
    store = DescriptorStore(precomputed, modalities, devices.device())
    labels = embed_members(networks, store, data.labels, *at)
    return labels, {n: embed_vectors(networks, store, p, *at)[0] for n, p in products.items()}


def _rows(embeddings: PretrainEmbeddings, kind: str) -> LabelRows:
    """The vectors that are searched: bag rows and centroids (`bag`), or z^1 (`vec`)."""
    e = embeddings
    return searched_rows(kind, e.label_rows, e.label_offsets, e.label_vectors, e.centroids)


def _recall(labels: np.ndarray, truth: Lists) -> float:
    """The percentage of true datapoint-label pairs that are in the shortlists."""
    return 100 * float(is_in(labels, truth).sum()) / max(len(truth.values), 1)


if __name__ == "__main__":
    runtime.run(main, processes.launch, process_group.leave)
