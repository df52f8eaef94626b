"""Bags of descriptors, and the one vector that a bag is summed to (MUFIN Sec. 3, Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mufin.corpus.modality import IMAGE


@dataclass(frozen=True, slots=True)
class Bag:
    """n bags of at most m descriptors: `rows` (n, m, D), `modality` (n, m) int8, -1 where there is none."""

    rows: Tensor
    modality: Tensor

    @property
    def mask(self) -> Tensor:
        """(n, m) bool, True where there is a descriptor."""
        return self.modality >= 0

    def __getitem__(self, index: Tensor) -> Bag:
        return Bag(self.rows[index], self.modality[index])


class Pooling(nn.Module):
    """x^1 = N(sum of the bag's rows); with `gated`, each modality's rows have a learnt weight in the sum.

    The paper's sum has no weights. After A_S's LayerNorm the row of a noisy picture is as long as a title's, so that a
    weight per modality helps where one of them tells less. `image_gate` is the start of the image's log weight.
    """

    def __init__(self, gated: bool = False, image_gate: float = 0.0):
        super().__init__()
        self.gates = (
            nn.Parameter(torch.zeros(3)) if gated else None
        )  # log weights: text, image, lexical
        if self.gates is not None:
            self.gates.data[IMAGE] = image_gate

    def weights(self, modality: Tensor) -> Tensor:
        """The weight of each row in its bag's sum, (n, m): 1 without gates, exp(gate) with them, 0 for padding."""
        if self.gates is None:
            return (modality >= 0).float()
        return self.gates.exp()[modality.clamp_min(0).long()] * (modality >= 0)

    def forward(self, bag: Bag) -> Tensor:
        """(n, D) unit vectors; zero for an empty bag."""
        return normalize((bag.rows * self.weights(bag.modality).unsqueeze(-1)).sum(-2), dim=-1)
