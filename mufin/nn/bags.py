"""Bags of descriptors, and the pooling of a bag to one vector (MUFIN Sec. 3, Fig. 2).

A product's bag has one row per descriptor: its title, each of its pictures, its title words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mufin.corpus.modality import IMAGE


@dataclass(frozen=True, slots=True)
class Bag:
    """n bags of at most m rows each, padded."""

    rows: Tensor  # (n, m, D)
    modality: Tensor  # (n, m) int8 code of each row (mufin.corpus.modality), -1 = padding

    @property
    def mask(self) -> Tensor:
        """(n, m) bool: true for descriptors, false for padding."""
        return self.modality >= 0

    def __getitem__(self, index: Tensor) -> Bag:
        return Bag(self.rows[index], self.modality[index])


class Pooling(nn.Module):
    """x^1 = N(sum of the rows of a bag), N the L2 normalisation (MUFIN Sec. 3).

    The paper sums without weights. With `gated`, the sum has a learnt weight per modality. After
    the LayerNorm of A_S the row of an uninformative picture is as long as that of a title, so a
    weight helps if one modality is less informative. `image_gate` is the initial log weight of
    images. With `means`, the sum is over modalities, of the mean of each: otherwise six pictures of
    a product have six times the weight of its title.
    """

    def __init__(self, gated: bool = False, image_gate: float = 0.0, means: bool = False):
        super().__init__()
        self.means = means
        self.gates = nn.Parameter(torch.zeros(3)) if gated else None  # log weight per modality code
        if self.gates is not None:
            self.gates.data[IMAGE] = image_gate

    def weights(self, modality: Tensor) -> Tensor:
        """(n, m) weight of each row in the sum of its bag; 0 for padding.

        Without gates every weight is 1, with gates it is exp(gate of the modality). With `means`
        it is divided by the number of rows of the modality in the bag.
        """
        weight = (modality >= 0).float()
        if self.gates is not None:
            weight = self.gates.exp()[modality.clamp_min(0).long()] * weight
        if self.means:
            alike = modality.unsqueeze(-1) == modality.unsqueeze(-2)  # (n, m, m)
            weight = weight / alike.sum(-1)
        return weight

    def forward(self, bag: Bag) -> Tensor:
        """(n, D) unit vectors; zero for an empty bag."""
        return normalize((bag.rows * self.weights(bag.modality).unsqueeze(-1)).sum(-2), dim=-1)
