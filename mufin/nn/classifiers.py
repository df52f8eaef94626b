"""One-vs-all classifiers (MUFIN Fig. 2b)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class LabelClassifiers(nn.Module):
    """One-vs-all classifiers w_l = N(a_l z_l + (1 - a_l) N(eta_l))  (MUFIN Fig. 2b).

    z_l is the label embedding, eta_l the label's free vector, a_l its learnt mixing weight and N
    the L2 normalisation. The outer N is in the released code but not in the figure;
    `outer_norm=False` leaves it out. Gradients are sparse, so a sparse optimiser only changes the
    rows of the labels in a step.
    """

    def __init__(self, num_labels: int, dim: int, alpha: float = 0.5, outer_norm: bool = True):
        super().__init__()
        self.outer_norm = outer_norm
        self.free = nn.Embedding(num_labels, dim, sparse=True)  # eta, (L, D)
        self.mix = nn.Embedding(num_labels, 1, sparse=True)  # logit of a, (L, 1)
        nn.init.xavier_uniform_(self.free.weight)  # Sec. 3.1, Module III
        logit = torch.logit(torch.tensor(alpha, dtype=torch.float64))
        nn.init.constant_(self.mix.weight, float(logit))

    def unseen(self, z: Tensor) -> Tensor:
        """(U, D): the classifiers of labels without a free vector, z itself (alpha = 1)."""
        return z

    def tables(self) -> list[nn.Embedding]:
        """The tables with a row per label that trains."""
        return [self.free, self.mix]

    def forward(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """(U,) int64 distinct labels and their unit-norm (U, D) embeddings -> (U, D) classifiers.

        Classifiers have unit norm if `outer_norm`.
        """
        return self.combined(z, self.mix(label_ids), self.free(label_ids))

    def combined(self, z: Tensor, logit: Tensor, free: Tensor) -> Tensor:
        """The classifiers of rows of `mix` (U, 1) and of `free` (U, D), which may be bfloat16."""
        if free.dtype == torch.bfloat16:  # with `finetune.free_precision: bf16`
            free = free.float()
        a = logit.sigmoid()  # (U, 1)
        w = a * z + (1 - a) * normalize(free, dim=-1)
        return normalize(w, dim=-1) if self.outer_norm else w


class DirectedClassifiers(nn.Module):
    """w_l = N(M z_l + eta_l), with one matrix M for all labels; not in the paper.

    Datapoints and labels share their encoders, so <x, z> is the same in both directions, but what
    people buy is not: a case goes with a phone more often than the reverse. M learns this
    difference from all labels, where MUFIN has only eta_l, which learns it for each label anew. M
    starts as the identity. eta_l starts at 0 and is not normalised: it becomes as long as the
    label's datapoints make it. `outer_norm=False` leaves out N, as in `LabelClassifiers`.
    """

    def __init__(self, num_labels: int, dim: int, outer_norm: bool = True):
        super().__init__()
        self.outer_norm = outer_norm
        self.free = nn.Embedding(num_labels, dim, sparse=True)  # eta, (L, D)
        nn.init.zeros_(self.free.weight)
        self.map = nn.Linear(dim, dim)  # M
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def tables(self) -> list[nn.Embedding]:
        """The tables with a row per label that trains."""
        return [self.free]

    def unseen(self, z: Tensor) -> Tensor:
        """(U, D): the classifiers of labels without a free vector."""
        return self._scaled(self.map(z))

    def forward(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """(U,) int64 distinct labels and their unit-norm (U, D) embeddings -> (U, D) classifiers.

        Classifiers have unit norm if `outer_norm`.
        """
        return self._scaled(self.map(z) + self.free(label_ids))

    def _scaled(self, w: Tensor) -> Tensor:
        return normalize(w, dim=-1) if self.outer_norm else w
