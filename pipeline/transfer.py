"""Module III: carry E_V, E_T and A_S over; A_C identity, free vectors and alpha at their start (MUFIN Sec. 3.1).

python -m pipeline.transfer
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline import runtime
from pipeline.inputs import Curated, read_curated
from pipeline.model_files import load_members, save_members, with_classifiers, with_cross_attention
from pipeline.params import Params, load_params
from pipeline.retrieve import read_embeddings
from pipeline.training.free_vectors import ridge_classifiers


def main(
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    embeddings: Path = Path("data/embeddings/pretrain.safetensors"),
    start: Path = Path("models/pretrain"),
    model: Path = Path("models/transfer"),
    metrics: Path = Path("metrics/transfer.json"),
):
    """Module III: carry the encoders and A_S over, start A_C, the free vectors and alpha."""
    params, data = load_params(), read_curated(curated)
    members = load_members(start, precomputed)
    with runtime.measured(metrics) as report:
        vectors = read_embeddings(embeddings)
        for number, member in enumerate(members):
            torch.manual_seed(params.seed + number)
            with_classifiers(member, len(data.labels), params.transfer.alpha, params.finetune.normalise_classifier)
            with_cross_attention(member, params.transfer.a_c)
            part = slice(number * member.dim, (number + 1) * member.dim)
            free = _free_vectors(params, data, vectors["train"][:, part], vectors["centroids"][:, part])
            if free is not None:
                member.classifiers.free.weight.data = torch.from_numpy(np.ascontiguousarray(free, np.float32))
        save_members(members, model)
        report |= {"items": len(data.labels), "labels": len(data.labels), "a_c": params.transfer.a_c,
                   "free_vectors": params.transfer.free_vectors, "alpha": params.transfer.alpha}


def _free_vectors(params: Params, data: Curated, train: np.ndarray, centroids: np.ndarray) -> np.ndarray | None:
    """The start of eta, (L, D); None keeps Xavier's."""
    if params.transfer.free_vectors == "centroid":
        return centroids
    if params.transfer.free_vectors == "ridge":
        return ridge_classifiers(train, data.train.labels, len(data.labels), params.transfer.ridge)
    return None


if __name__ == "__main__":
    runtime.run(main)
