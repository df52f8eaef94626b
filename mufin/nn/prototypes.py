"""Classifiers that attend over label vector, centroid and free vector (PRIME, NAACL 2025)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

PARTS = 3  # z_l, mu_l, eta_l


class PrototypeClassifiers(nn.Module):
    """w_l = N(mean_i (p_i + O(softmax(Q K^T / sqrt(D)) V)_i)) over the parts p of a label l.

    The parts are the label vector z_l, the centroid mu_l (the mean vector of the label's train
    datapoints) and the free vector eta_l, each of unit norm. Queries, keys and values are linear in
    p_i + r_i, with a learnt vector r_i per kind of part. A label without train datapoints has no
    centroid, and one without a descriptor no z_l: such parts are left out.

    PRIME (Dahiya, Ortego and Jimenez-Cabello, NAACL 2025) has one layer of a transformer here, and
    moves its centroids in training. In this project the centroids stay as Module III computed them
    from the vectors of Module I, there is no feed-forward layer, and O starts at 0: training starts
    from the mean of the parts. `outer_norm=False` leaves out N, as in `LabelClassifiers`.
    """

    centroids: Tensor

    def __init__(self, num_labels: int, dim: int, outer_norm: bool = True):
        super().__init__()
        self.outer_norm = outer_norm
        self.free = nn.Embedding(num_labels, dim, sparse=True)  # eta, (L, D)
        nn.init.xavier_uniform_(self.free.weight)  # as in MUFIN, Sec. 3.1, Module III
        self.register_buffer("centroids", torch.zeros(num_labels, dim))  # mu; 0 for none
        self.combiner = _Combiner(dim)

    def unseen(self, z: Tensor) -> Tensor:
        """(U, D): the classifiers of labels without datapoints and free vector: z itself."""
        return z

    def tables(self) -> list[nn.Embedding]:
        """The tables with a row per label that trains."""
        return [self.free]

    def parts(self, label_ids: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of (U,) labels, (U, 3, D) of unit norm, and which of them exist, (U, 3)."""
        parts = torch.stack([z, self.centroids[label_ids], self.free(label_ids)], 1)
        return normalize(parts, dim=-1), parts.detach().norm(dim=-1) > 0

    def forward(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """(U,) int64 distinct labels and their unit-norm (U, D) embeddings -> (U, D) classifiers.

        Classifiers have unit norm if `outer_norm`.
        """
        w = self.combiner(*self.parts(label_ids, z))
        return normalize(w, dim=-1) if self.outer_norm else w


class _Combiner(nn.Module):
    """One head of self-attention over the parts of a label, a residual, and the mean."""

    def __init__(self, dim: int):
        super().__init__()
        self.kinds = nn.Parameter(torch.randn(PARTS, dim) * dim**-0.5)  # r, about unit norm
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        """(U, 3, D), of which those `there` (U, 3) exist -> (U, D)."""
        x = parts + self.kinds
        scores = self.query(x) @ self.key(x).mT / math.sqrt(x.shape[-1])  # (U, 3, 3)
        weights = scores.masked_fill(~there.unsqueeze(1), -1e9).softmax(-1)
        rows = parts + self.out(weights @ self.value(x))  # (U, 3, D)
        share = there.unsqueeze(-1).to(rows.dtype)
        return (rows * share).sum(1) / share.sum(1).clamp_min(1)
