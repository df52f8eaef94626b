"""A small label index over given descriptors, and the networks that it is of."""

from __future__ import annotations

import numpy as np
import torch

from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.embedding import centroids, embed_members, joint_rows, joint_vectors
from mufin.nn.mufin import Mufin
from mufin.ranking.label_index import LabelIndex
from mufin.ranking.neighbour_votes import NeighbourVotes
from mufin.ranking.title_ridge import TitleRidge
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours
from tests.support.bags import GivenStore, random_graph, shaken, tiny_mufin

CPU = torch.device("cpu")
PRODUCTS, LABELS, WIDTH = 30, 12, 12
LABEL_PRODUCTS = np.random.default_rng(4).permutation(PRODUCTS)[:LABELS]
TITLES = [f"{word} {kind}" for kind in ("lamp", "shelf", "rug") for word in "abcdefghij"]


def networks(count: int = 2) -> list[Mufin]:
    """Fine-tuned networks, as far as random weights can stand for them."""
    members = []
    for seed in range(count):
        model = tiny_mufin(WIDTH)
        model.classifiers = LabelClassifiers(LABELS, model.dim)
        members.append(shaken(model, seed).eval())
    return members


def store() -> GivenStore:
    return GivenStore(PRODUCTS, WIDTH)


def label_index(
    members: list[Mufin], search: str = "exact", ridge: bool = False, votes: bool = False
) -> LabelIndex:
    """What the stage index makes of these networks; all products are train datapoints."""
    labels = embed_members(members, store(), LABEL_PRODUCTS, CPU, torch.float32)
    train = embed_members(members, store(), np.arange(PRODUCTS), CPU, torch.float32)
    truth = random_graph(PRODUCTS, LABELS)
    mu = centroids(joint_vectors(train), truth.transpose(LABELS))
    rows = augmented_rows(joint_rows(labels), labels[0].offsets, mu)
    search_options = {"device": CPU, "m": 8, "ef_construction": 40, "ef": 40}
    voters = LabelRows(joint_vectors(train), np.arange(PRODUCTS), PRODUCTS)
    with torch.no_grad():
        classifiers = [
            m.classifier(torch.arange(LABELS), torch.from_numpy(e.vectors)).numpy()
            for m, e in zip(members, labels)
        ]
    return LabelIndex(
        labels,
        classifiers,
        mu,
        LABEL_PRODUCTS,
        np.bincount(truth.values, minlength=LABELS).astype(np.int64),
        build_neighbours(rows, search, **search_options),
        TitleRidge.fit(TITLES, truth, LABELS, 1.0) if ridge else None,
        NeighbourVotes(
            build_neighbours(voters, search, **search_options), np.arange(PRODUCTS), truth, 5, 0.1
        )
        if votes
        else None,
    )
