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

    def tables(self) -> list[nn.Embedding]:
        """The tables with a row per label that trains."""
        return [self.free, self.mix]

    def forward(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """(U,) int64 distinct labels and their unit-norm (U, D) embeddings -> (U, D) classifiers.

        Classifiers have unit norm if `outer_norm`.
        """
        a = self.mix(label_ids).sigmoid()  # (U, 1)
        w = a * z + (1 - a) * normalize(self.free(label_ids), dim=-1)
        return normalize(w, dim=-1) if self.outer_norm else w
