"""SCE-Net average: masks of similarity conditions, learnt without labels of the conditions.

Tan et al., "Learning Similarity Conditions Without Explicit Supervision", ICCV 2019.

As published: M = 5 learnt masks, one per similarity condition; an item has one vector per
condition, its general vector (unit norm) times the mask, scaled to length 1. The vectors that two
items are compared by are weighted sums of these. In SCE-Net the weights of a pair come from a
small network (32 units, softmax) on the general vectors of both; no label says which condition
holds. The row of Table 3 is the variant "average", as Lin et al. (CVPR 2020) compare with it: all
conditions have the same weight, so that an item has one vector whatever it is compared with. The
losses are those of triplets, the L_vse and L_sim of Vasileva et al., and the norms of masks and
vectors.

Differences: as in `type_aware.py`, whose margin and weights of the losses are used here. The texts
that we could read do not say whether "average" was trained with equal weights or only scored with
them; here it is trained with them. `average=False` gives SCE-Net with learnt weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.backbone import Architecture, Backbone
from mufin.baselines.outfits.batches import Batch
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.losses import (
    TitleBranch,
    Triplets,
    euclidean,
    hinge,
    similarity_of_types,
    visual_semantic,
)
from mufin.baselines.outfits.scoring import Scorer
from mufin.baselines.outfits.training import Budget, trained
from mufin.baselines.outfits.type_aware import LENGTH, MARGIN, SEMANTIC, SIMILARITY, SPARSITY
from mufin.ragged import Lists

CONDITIONS, HIDDEN = 5, 32


class SceNet(nn.Module):
    """d(a, b) = |sum_m w_m (N(x_a c_m) - N(x_b c_m))|, with w_m(a, b), or w_m = 1 / M."""

    def __init__(self, words: int, dim: int, encoder: Architecture, average: bool = True):
        super().__init__()
        self.pictures, self.titles = Backbone(dim, encoder), TitleBranch(words, dim)
        self.masks = nn.Parameter(torch.empty(CONDITIONS, dim).normal_(0.9, 0.7))
        self.weights = None
        if not average:
            self.weights = nn.Sequential(
                nn.Linear(2 * dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CONDITIONS), nn.Softmax(-1)
            )

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, D), the general vectors, unit norm."""
        return F.normalize(self.pictures(pixels), dim=1)

    def conditioned(self, x: Tensor) -> Tensor:
        """(..., M, D) of general vectors (..., D): one unit-norm vector per condition."""
        return F.normalize(x[..., None, :] * F.relu(self.masks), dim=-1)

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """(...) in [0, 2], of general vectors (..., D); types are not used. See `Pairwise`."""
        if self.weights is None:
            return euclidean(self.conditioned(a).mean(-2), self.conditioned(b).mean(-2))
        a, b = torch.broadcast_tensors(a, b)
        weights = self.weights(torch.cat([a, b], -1))[..., None]  # (..., M, 1)
        one, other = self.conditioned(a) * weights, self.conditioned(b) * weights
        return euclidean(one.sum(-2), other.sum(-2))

    def loss(self, batch: Batch) -> Tensor:
        """() triplets, L_sim, L_vse and the two norms."""
        general = self.pictures(batch.pixels)
        x, titles = F.normalize(general, dim=1), self.titles(batch.words)
        triplets, has = Triplets(*batch.triplets()), (batch.words.abs().sum(1) > 0).float()
        given, positive, negative = triplets
        types = batch.types
        near = self.distance(x[given], types[given], x[positive], types[positive])
        far = self.distance(x[given], types[given], x[negative], types[negative])
        single = Triplets(*batch.triplets(1))
        alike = similarity_of_types(x, titles, has, single, MARGIN)
        return (
            hinge(near, far, MARGIN)
            + SIMILARITY * alike
            + SEMANTIC * visual_semantic(x, titles, has, single, MARGIN)
            + LENGTH * general.norm() / math.sqrt(len(x))
            + SPARSITY * F.relu(self.masks).sum(1).mean()
        )


def fit(
    items: Items, train: Lists, valid: Questions, seed: int, budget: Budget, average: bool = True
) -> Scorer:
    """The scorer after training on outfits; the pass is chosen on `valid`."""

    def make() -> SceNet:
        return SceNet(items.words.shape[1], budget.dim, budget.encoder, average)

    return trained(make, items, train, valid, seed, budget, "SCE-Net average")
