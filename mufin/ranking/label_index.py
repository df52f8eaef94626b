"""`models/index`: bags, classifiers and search structure of all labels, for prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mufin.artifacts.contents import check, checked
from mufin.artifacts.files import artifact_json, write_json
from mufin.artifacts.mapped import MappedTensors
from mufin.artifacts.publication import publish
from mufin.errors import ArtifactError, shown
from mufin.nn.embedding import Embedded, joint_rows, joint_vectors
from mufin.ragged import Lists, offsets_of
from mufin.ranking.neighbour_votes import NeighbourVotes
from mufin.ranking.title_ridge import TitleRidge
from mufin.retrieval.augmented import searched_rows
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.retrieval.made_rows import MadeRows
from mufin.retrieval.neighbours import load_neighbours

FIELDS = ("rows", "modality", "offsets", "vectors")  # of Embedded


@dataclass(frozen=True, slots=True)
class LabelIndex:
    """Bags, classifiers, centroids and the search structure of all L labels."""

    labels: list[Embedded]  # by each member
    classifiers: list[np.ndarray]  # w by each member, (L, D)
    centroids: np.ndarray  # (L, members x D), of the networks that search
    products: np.ndarray  # (L,) int64
    frequency: np.ndarray  # (L,) int64, train datapoints per label
    neighbours: ExactNeighbours | HnswNeighbours
    ridge: TitleRidge | None  # None if index.title_ridge is off
    votes: NeighbourVotes | None = None  # None if index.voters is 0
    found: list[Embedded] | None = None  # labels by the networks of Module I, if these search
    vectors: str = "bag"  # what a label is found by: bag or vec

    def __len__(self) -> int:
        return len(self.products)

    @property
    def log_frequency(self) -> np.ndarray:
        """(L,) float32, log(1 + train datapoints)."""
        return np.log1p(self.frequency).astype(np.float32)

    def labels_of(self, products: np.ndarray) -> Lists:
        """For each of `products`, the label that is this product, or none.

        Such a label is excluded from the answers: a product must not be recommended to itself.
        """
        order = np.argsort(self.products, kind="stable")
        place = np.minimum(np.searchsorted(self.products[order], products), max(len(order) - 1, 0))
        found = order[place]
        there = self.products[found] == products
        return Lists(offsets_of(there.astype(np.int64)), found[there])


def label_rows(
    kind: str,
    labels: list[Embedded],
    centroids: np.ndarray,
    release: Callable[[], None] | None = None,
) -> LabelRows:
    """The vectors of all members by which `labels` are found; `kind` is bag or vec.

    They are computed when they are read: all of them would double the memory. `release` is called
    after many of them were read.
    """
    offsets, width = labels[0].offsets, centroids.shape[1]
    rows = MadeRows(
        (len(labels[0].rows), width),
        lambda numbers: joint_rows([replace(e, rows=e.rows[numbers]) for e in labels]),
    )
    vectors = MadeRows(
        (len(labels[0].vectors), width),
        lambda numbers: joint_vectors([replace(e, vectors=e.vectors[numbers]) for e in labels]),
    )
    return searched_rows(kind, rows, offsets, vectors, centroids, release)


def save_index(index: LabelIndex, folder: Path, made_from: Mapping[str, str] | None = None) -> None:
    """Publishes `index.safetensors`, `index.json`, the graphs of HNSW and the ridge, if any.

    `made_from` has the ids of the artifacts that the index belongs together with.
    """
    tensors = {
        "centroids": index.centroids,
        "products": index.products,
        "frequency": index.frequency,
    }
    for m, (embedded, w) in enumerate(zip(index.labels, index.classifiers)):
        tensors |= {f"{m}/{name}": getattr(embedded, name) for name in FIELDS}
        tensors[f"{m}/w"] = w
    for m, embedded in enumerate(index.found or []):
        tensors |= {f"found/{m}/{name}": getattr(embedded, name) for name in FIELDS}
    if index.votes is not None:
        tensors |= {f"votes/{name}": array for name, array in index.votes.tensors().items()}
    with publish(folder, made_from) as scratch:
        scratch.mkdir()
        contiguous = {n: np.ascontiguousarray(t) for n, t in tensors.items()}
        save_file(contiguous, scratch / "index.safetensors")
        facts = {
            "members": len(index.labels),
            "search": type(index.neighbours).__name__,
            "ridge": index.ridge is not None,
            "votes": None if index.votes is None else index.votes.facts(),
            "retrieve_vectors": index.vectors,
            "retrieve_model": "finetune" if index.found is None else "pretrain",
        }
        write_json(facts, scratch / "index.json")
        index.neighbours.save(scratch / "neighbours")
        if index.ridge is not None:
            index.ridge.save(scratch)
        if index.votes is not None:
            index.votes.search.save(scratch / "voters")


def load_index(folder: Path, device: torch.device) -> LabelIndex:
    """The index that `save_index` wrote, its tensors memory-mapped.

    Raises ArtifactError if it is not as it was written.
    """
    checked(folder)
    facts, path = artifact_json(folder / "index.json"), folder / "index.safetensors"
    check(path, mapped=True)
    try:
        tensors, members = MappedTensors(path), range(facts["members"])
        labels = [Embedded(*(tensors[f"{m}/{name}"] for name in FIELDS)) for m in members]
        found = None
        if facts["retrieve_model"] == "pretrain":
            found = [Embedded(*(tensors[f"found/{m}/{n}"] for n in FIELDS)) for m in members]
        rows = label_rows(
            facts["retrieve_vectors"], found or labels, tensors["centroids"], tensors.release
        )
        return LabelIndex(
            labels=labels,
            classifiers=[tensors[f"{m}/w"] for m in members],
            centroids=tensors["centroids"],
            products=tensors["products"],
            frequency=tensors["frequency"],
            neighbours=load_neighbours(folder / "neighbours", rows, device),
            ridge=TitleRidge.load(folder) if facts["ridge"] else None,
            votes=_load_votes(facts["votes"], tensors, folder, device),
            found=found,
            vectors=facts["retrieve_vectors"],
        )
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({shown(str(error))}); run `dvc repro index`"
        ) from None


def _load_votes(
    facts: dict | None, tensors: dict[str, np.ndarray], folder: Path, device: torch.device
) -> NeighbourVotes | None:
    if facts is None:
        return None
    products, labels = tensors["votes/products"], tensors["votes/labels"]
    rows = LabelRows(tensors["votes/vectors"], tensors["votes/datapoint"], len(products))
    search = load_neighbours(folder / "voters", rows, device)
    return NeighbourVotes(search, products, Lists(tensors["votes/offsets"], labels), **facts)
