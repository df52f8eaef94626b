"""Builds the label side of prediction: bags and classifiers of the fine-tuned networks, and search.

One process:  python -m pipeline.index
Several GPUs: MUFIN_PROCESSES=<n> python -m pipeline.index, or torchrun
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mufin import devices, process_group, processes, runtime
from mufin.artifacts.contents import contents_of
from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table
from mufin.cluster.embedding import Asked, embed_on, embedding_cluster
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import load_members
from mufin.nn.embedding import Embedded, centroids, embed_members, embed_vectors
from mufin.nn.mufin import Mufin
from mufin.params import Params, load_params
from mufin.ranking.label_index import LabelIndex, label_rows, save_index
from mufin.ranking.neighbour_votes import NeighbourVotes
from mufin.ranking.title_ridge import TitleRidge
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.retrieval.neighbours import build_neighbours
from mufin.retrieval.recall import recall_facts

MEASURED = 100  # nearest labels for which the recall of the search is measured


def main(home: runtime.Home = Path(".")) -> None:
    """Embed all labels, and build the search over them."""
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    device, s = devices.device(), params.index
    process_group.start(device)
    precomputed = Precomputed(home / "data/precomputed")
    members = load_members(home / "models/finetune", precomputed, whole=False)
    networks = [member.network for member in members]
    with runtime.measured("index", home) as report:
        sources = ["models/finetune", "data/curated"]
        if params.retrieve.model == "pretrain":
            sources.append("models/pretrain")
        labels, found, (train, there) = _embedded(home, params, data, networks)
        if process_group.rank() > 0:
            return  # the first process does the rest
        mu = centroids(train, data.train.labels.transpose(len(data.labels)))
        rows = label_rows(params.retrieve.vectors, found or labels, mu)
        neighbours = _search(rows, params, device)
        frequency = np.bincount(data.train.labels.values, minlength=len(data.labels))
        index = LabelIndex(
            labels=labels,
            classifiers=_classifiers(networks, labels),
            centroids=mu,
            products=data.labels,
            frequency=frequency.astype(np.int64),
            neighbours=neighbours,
            ridge=_ridge(s.title_ridge, home, data) if s.title_ridge else None,
            votes=_votes(params, data, train, there, device) if s.voters else None,
            found=found,
            vectors=params.retrieve.vectors,
        )
        made_from = {n: contents_of(home / n).id for n in sources}
        save_index(index, home / "models/index", made_from)
        report.items = len(rows.label)
        report.facts = {
            "labels": len(data.labels),
            "rows": len(rows.label),
            "dim": rows.rows.shape[1],
            "search": type(neighbours).__name__,
        }
        k = min(MEASURED, len(data.labels))
        report.facts |= recall_facts("index", neighbours, train, k, params.seed, device)


def _embedded(
    home: Path, params: Params, data: Curated, networks: list[Mufin]
) -> tuple[list[Embedded], list[Embedded] | None, tuple[np.ndarray, np.ndarray]]:
    """The labels by the fine-tuned `networks`, and by those of Module I if these search.

    Then the train datapoints by the networks that search: (N, D') vectors, and (N,) bool whether
    they have a descriptor. All are embedded here, or on the cluster that the environment names.
    """
    modalities: list[str] = list(params.encoder.modalities)
    module_one = params.retrieve.model == "pretrain"
    if (machines := embedding_cluster()) is not None:
        bags = {"labels": Asked("models/finetune", data.labels)}
        if module_one:
            bags["found"] = Asked("models/pretrain", data.labels)
        train = Asked("models/pretrain" if module_one else "models/finetune", data.train.product)
        of_labels, vectors = embed_on(machines, home, modalities, bags, {"train": train})
        return of_labels["labels"], of_labels.get("found"), vectors["train"]
    at = devices.device(), devices.precision()
    store = DescriptorStore(home / "data/precomputed", modalities, devices.device())
    labels, found, retrievers = embed_members(networks, store, data.labels, *at), None, networks
    if module_one:
        precomputed = Precomputed(home / "data/precomputed")
        of_module_one = load_members(home / "models/pretrain", precomputed, whole=False)
        retrievers = [member.network for member in of_module_one]
        found = embed_members(retrievers, store, data.labels, *at)
    return labels, found, embed_vectors(retrievers, store, data.train.product, *at)


def _ridge(penalty: float, home: Path, data: Curated) -> TitleRidge:
    """The title ridge on the train datapoints."""
    titles = read_table(home / "data/curated/products.parquet", "products")["title"].to_pylist()
    of_train = [titles[p] for p in data.train.product]
    return TitleRidge.fit(of_train, data.train.labels, len(data.labels), penalty)


def _votes(
    params: Params, data: Curated, train: np.ndarray, there: np.ndarray, device: torch.device
) -> NeighbourVotes:
    """The votes of the train datapoints, whose vectors are `train` (N, D').

    Those without a descriptor, where `there` (N,) is false, do not vote.
    """
    datapoint = np.flatnonzero(there)
    voters = train if there.all() else train[datapoint]  # all of them without a copy
    rows = LabelRows(voters, datapoint, len(train))
    search, s = _search(rows, params, device), params.index
    labels = data.train.labels
    return NeighbourVotes(search, data.train.product, labels, s.voters, s.vote_temperature)


def _search(
    rows: LabelRows, params: Params, device: torch.device
) -> ExactNeighbours | HnswNeighbours:
    """The search over `rows` that the settings ask for."""
    s = params.index
    return build_neighbours(
        rows,
        s.search,
        device=device,
        m=s.hnsw.m,
        ef_construction=s.hnsw.ef_construction,
        ef=s.hnsw.ef,
        seed=params.seed,
        threads=runtime.threads(s.hnsw.threads),
    )


@torch.inference_mode()
def _classifiers(networks: list[Mufin], labels: list[Embedded]) -> list[np.ndarray]:
    """The classifiers w of all labels, (L, D) float32, by each network."""
    out = []
    for network, embedded in zip(networks, labels):
        network.cpu()
        ids = torch.arange(len(embedded.vectors))
        out.append(network.classifier(ids, torch.from_numpy(embedded.vectors)).float().numpy())
    return out


if __name__ == "__main__":
    runtime.run(main, processes.launch, process_group.leave)
