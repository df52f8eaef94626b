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
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import load_members
from mufin.nn.embedding import (
    centroids,
    embed_members,
    embed_vectors,
    joint_rows,
    joint_vectors,
)
from mufin.nn.mufin import Mufin
from mufin.params import load_params
from mufin.ragged import Lists, is_in
from mufin.retrieval.augmented import searched_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours, is_exact, shared_search
from mufin.retrieval.recall import recall_facts


def main(home: runtime.Home = Path(".")) -> None:
    """Module II: one query per datapoint over all bag rows and centroids of the labels."""
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    s, precomputed, device = params.retrieve, home / "data/precomputed", devices.device()
    process_group.start(device)
    first = process_group.rank() == 0
    with runtime.measured("retrieve", home) as report:
        members = load_members(home / "models/pretrain", Precomputed(precomputed), whole=False)
        store = DescriptorStore(precomputed, list(params.encoder.modalities), device)
        embeddings = _embeddings([member.network for member in members], store, data)
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


def _embeddings(networks: list[Mufin], store: DescriptorStore, data: Curated) -> PretrainEmbeddings:
    """All labels and datapoints as Module I embeds them."""
    device, precision = devices.device(), devices.precision()
    labels = embed_members(networks, store, data.labels, device, precision)
    vectors = {
        name: embed_vectors(networks, store, split.product, device, precision)[0]
        for name, split in data.splits.items()
    }
    mu = centroids(vectors["train"], data.train.labels.transpose(len(data.labels)))
    return PretrainEmbeddings(
        joint_rows(labels), labels[0].offsets, joint_vectors(labels), mu, **vectors
    )


def _rows(embeddings: PretrainEmbeddings, kind: str) -> LabelRows:
    """The vectors that are searched: bag rows and centroids (`bag`), or z^1 (`vec`)."""
    e = embeddings
    return searched_rows(kind, e.label_rows, e.label_offsets, e.label_vectors, e.centroids)


def _recall(labels: np.ndarray, truth: Lists) -> float:
    """The percentage of true datapoint-label pairs that are in the shortlists."""
    return 100 * float(is_in(labels, truth).sum()) / max(len(truth.values), 1)


if __name__ == "__main__":
    runtime.run(main, processes.launch)
