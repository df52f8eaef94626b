"""ADDE-O: one part of a vector per attribute, weighted by the types of both items.

Hou et al., "Learning Attribute-driven Disentangled Representations for Interactive Fashion
Retrieval", ICCV 2021: the encoder ADDE, for outfits.

As published: two linear layers per attribute map a picture's features to the part of the vector of
that attribute. The parts are disentangled by labels: a classifier per attribute; a triplet loss
among pictures with the same and with other values (label triplet); a memory block of one prototype
per value, to which parts with that value are near (consistency triplet), and whose entries outside
of the attribute's own part are pushed to 0 (memory loss). For outfits the parts take the place of
the masked vectors of CSA-Net: they are weighted by attention on the types of both items, and the
loss is the outfit ranking loss.

Differences: outfits come without annotated attributes (the publication has those of Shopping100k
and DeepFashion), so the colour of the picture and the topic of the title stand in
(`found_attributes.py`). The type is no attribute of its own: the attention knows it, and a part
that tells types only, which all answers share, lets all distances shrink to 0. Encoder and outfit
loss are trained together; the weights of the losses (`ATTRIBUTES`, `MEMORY`) and margins of 0.3 are
ours. The compositional loss, for changes of one attribute, has no part in outfits. The released
code holds the encoder and not the outfit version, and we had a summary of the text, not all of it.
The parts have length 1. The picture encoder is that of `backbone.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.backbone import Architecture, Backbone
from mufin.baselines.outfits.batches import Batch
from mufin.baselines.outfits.csa_net import TypeAttention, outfit_ranking, semi_hard
from mufin.baselines.outfits.found_attributes import attributes
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.losses import euclidean, hinge
from mufin.baselines.outfits.scoring import Scorer
from mufin.baselines.outfits.training import Budget, trained
from mufin.ragged import Lists

MARGIN = 0.3
ATTRIBUTES, MEMORY = 0.1, 1e-3  # weights of the losses of attributes and of the memory


class AddeO(nn.Module):
    """d(a, b) = |w(u, v) (x_a - x_b)|, with one weight per attribute for types u and v."""

    def __init__(
        self,
        num_types: int,
        values: Sequence[int],
        known: np.ndarray,
        dim: int,
        encoder: Architecture,
    ):
        """`known` (N, A) int64 holds the attributes of all items, -1 where unknown."""
        super().__init__()
        self.values, self.part = list(values), max(1, dim // len(values))
        self.pictures = Backbone(dim, encoder)
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, self.part)) for _ in values
        )
        self.classifiers = nn.ModuleList(nn.Linear(self.part, count) for count in values)
        self.memory = nn.Parameter(torch.randn(sum(values), len(values), self.part) * 0.1)
        self.attention = TypeAttention(num_types, len(values))
        self.register_buffer("known", torch.from_numpy(known), persistent=False)
        self.known: Tensor

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, A part): a unit-norm part per attribute, side by side."""
        x = F.relu(self.pictures(pixels))
        return torch.cat([F.normalize(layers(x), dim=1) for layers in self.parts], 1)

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """(...) of vectors (..., A part) and their types; see `Pairwise`."""
        weights = self.attention(a_types, b_types).repeat_interleave(self.part, -1)
        return euclidean(a * weights, b * weights)

    def loss(self, batch: Batch) -> Tensor:
        """() the outfit ranking loss and the losses of all attributes."""
        x = self.vectors(batch.pixels)
        total = outfit_ranking(self, x, batch, MARGIN) + MEMORY * self.outside()
        known, first = self.known[batch.rows], 0
        for k, count in enumerate(self.values):
            prototypes = self.memory[first : first + count, k]
            part = x[:, k * self.part : (k + 1) * self.part]
            losses = F.cross_entropy(self.classifiers[k](part), known[:, k])
            losses = losses + label_triplet(part, known[:, k])
            losses = losses + consistency(part, prototypes, known[:, k])
            total = total + ATTRIBUTES * losses
            first += count
        return total

    def outside(self) -> Tensor:
        """() L1 norm of the memory outside of the parts of its values' own attributes."""
        attribute = torch.arange(len(self.values)).repeat_interleave(torch.tensor(self.values))
        own = F.one_hot(attribute, len(self.values)).bool()  # (values, A)
        return self.memory.abs().sum(2).masked_fill(own, 0.0).sum()


def label_triplet(part: Tensor, value: Tensor) -> Tensor:
    """() hinge on the mean distance to items of the same value, against a semi-hard other item.

    `part` (U, d), `value` (U,) int64. Items without an equal or without another are left out.
    """
    same = value[:, None] == value
    other, same = ~same, same & ~torch.eye(len(value), dtype=torch.bool)
    distance = euclidean(part[:, None], part[None])
    near = torch.where(same, distance, 0.0).sum(1) / same.sum(1).clamp_min(1)
    useful = (same.any(1) & other.any(1)).float()
    far = semi_hard(near, distance, other)
    return hinge(near, torch.where(useful > 0, far, 0.0), MARGIN, useful)


def consistency(part: Tensor, prototypes: Tensor, value: Tensor) -> Tensor:
    """() hinge on the distance to the own value's prototype, against a semi-hard other prototype.

    `part` (U, d), `prototypes` (values, d), `value` (U,) int64. 0 for a single value.
    """
    if len(prototypes) < 2:
        return torch.zeros(())
    distance = euclidean(part[:, None], F.normalize(prototypes, dim=1))
    near = distance.gather(1, value[:, None])[:, 0]
    return hinge(
        near, semi_hard(near, distance, value[:, None] != torch.arange(len(prototypes))), MARGIN
    )


def fit(items: Items, train: Lists, valid: Questions, seed: int, budget: Budget) -> Scorer:
    """The scorer after training on outfits; the pass is chosen on `valid`."""
    known, values = attributes(items, np.unique(train.values), seed)

    def make() -> AddeO:
        return AddeO(items.num_types, values, known, budget.dim, budget.encoder)

    return trained(make, items, train, valid, seed, budget, "ADDE-O")
