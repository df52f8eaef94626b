"""Module III: keeps E_V, E_T and A_S; adds A_C, the free vectors eta and alpha (MUFIN Sec. 3.1).

python -m pipeline.transfer
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mufin import runtime
from mufin.artifacts.curated import Curated, read_curated
from mufin.artifacts.embeddings import read_embeddings
from mufin.artifacts.precomputed import Precomputed
from mufin.nn.assembly import load_members, save_members, transferred
from mufin.nn.classifiers import DirectedClassifiers
from mufin.nn.prototypes import PrototypeClassifiers
from mufin.params import Transfer, load_params
from mufin.training.free_vectors import ridge_classifiers


def main(home: runtime.Home = Path(".")) -> None:
    """Module III: keep the encoders and A_S; add A_C, the free vectors and alpha."""
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    s, num_labels = params.transfer, len(data.labels)
    members = load_members(home / "models/pretrain", Precomputed(home / "data/precomputed"))
    with runtime.measured("transfer", home) as report:
        embeddings = read_embeddings(home / "data/embeddings/pretrain.safetensors")
        for number, member in enumerate(members):
            torch.manual_seed(params.seed + number)
            member = transferred(
                member, num_labels, s.a_c, s.alpha, s.normalise_classifier, s.classifier
            )
            classifiers, dim = member.network.classifiers, member.network.dim
            assert classifiers is not None
            part = slice(number * dim, (number + 1) * dim)  # this member's dimensions
            centroids = embeddings.centroids[:, part]
            free = _free_vectors(s, data, embeddings.train[:, part], centroids)
            if free is not None and not isinstance(classifiers, DirectedClassifiers):
                classifiers.free.weight.data = _tensor(free)
            if isinstance(classifiers, PrototypeClassifiers):
                classifiers.centroids = _tensor(centroids)
            members[number] = member
        save_members(members, home / "models/transfer", Precomputed(home / "data/precomputed"))
        report.items = num_labels
        report.facts = {
            "labels": num_labels,
            "a_c": s.a_c,
            "free_vectors": s.free_vectors,
            "alpha": s.alpha,
            "classifier": s.classifier,
        }


def _tensor(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32))


def _free_vectors(
    s: Transfer, data: Curated, train: np.ndarray, centroids: np.ndarray
) -> np.ndarray | None:
    """The start of eta, (L, D); None keeps the random one.

    `train` (n, D) are x^1 of the train datapoints, `centroids` (L, D) their means per label.
    """
    if s.free_vectors == "centroid":
        return centroids
    if s.free_vectors == "ridge":
        return ridge_classifiers(train, data.train.labels, len(data.labels), s.ridge)
    return None


if __name__ == "__main__":
    runtime.run(main)
