"""Type-aware: a learnt mask per pair of types.

Vasileva et al., "Learning Type-Aware Embeddings for Fashion Compatibility", ECCV 2018.

As published: a picture has one general vector of 64 numbers; a pair of types (u, v) has a learnt
mask, and two items of these types are compared after their vectors are multiplied by it and scaled
to length 1. The loss is that of triplets (given item, positive, negative of the positive's type)
with a margin of 0.3, plus: L_sim, by which two pictures, or two titles, of one type are nearer to
each other than to an item of another type (5e-5 each); L_vse, by which a picture is nearest to its
own title (5e-3); the length of the general vectors (5e-4) and the L1 norm of the masks (5e-4).
Margin, weights and the start of the masks (normal, 0.9 and 0.7) are those of the released code.
Scores are mean distances over pairs of items; titles are used in training alone.

Differences: the picture encoder and the title features (`backbone.py`, `items.py`; the publication
has ResNet-18 from ImageNet and Fisher vectors of word2vec). Each item of a batch of outfits is the
positive of all others of its outfit, with several negatives from the batch (one in L_sim and
L_vse), where the released code draws one triplet per pair. Adam has a higher rate, as the network
starts at random. Pairs of types that train does not have keep their masks from the start.
"""

from __future__ import annotations

import math

import numpy as np
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
from mufin.ragged import Lists

MARGIN = 0.3
SIMILARITY, SEMANTIC, LENGTH, SPARSITY = 5e-5, 5e-3, 5e-4, 5e-4  # weights of the further losses


class TypeAware(nn.Module):
    """d(a, b) = |N(x_a m_uv) - N(x_b m_uv)|, with the mask m_uv = max(0, .) of types u and v."""

    def __init__(self, num_types: int, words: int, dim: int, encoder: Architecture):
        super().__init__()
        self.pictures, self.titles = Backbone(dim, encoder), TitleBranch(words, dim)
        self.masks = nn.Embedding(num_types * (num_types + 1) // 2, dim)
        nn.init.normal_(self.masks.weight, 0.9, 0.7)
        pair = np.zeros((num_types, num_types), np.int64)
        pair[np.triu_indices(num_types)] = np.arange(len(self.masks.weight))
        self.register_buffer("pair", torch.from_numpy(np.maximum(pair, pair.T)), persistent=False)
        self.pair: Tensor  # (types, types) int64, the mask of two types in either order

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, D), the general vectors."""
        return self.pictures(pixels)

    def masks_of(self, a_types: Tensor, b_types: Tensor) -> Tensor:
        """(..., D) of pairs of types (...) int64."""
        return F.relu(self.masks(self.pair[a_types, b_types]))

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """(...) in [0, 2], of general vectors (..., D) and their types; see `Pairwise`."""
        mask = self.masks_of(a_types, b_types)
        return euclidean(F.normalize(a * mask, dim=-1), F.normalize(b * mask, dim=-1))

    def loss(self, batch: Batch) -> Tensor:
        """() triplets, L_sim, L_vse and the two norms."""
        x, titles = self.vectors(batch.pixels), self.titles(batch.words)
        triplets, has = Triplets(*batch.triplets()), (batch.words.abs().sum(1) > 0).float()
        given, positive, negative = triplets
        types = batch.types
        near = self.distance(x[given], types[given], x[positive], types[positive])
        far = self.distance(x[given], types[given], x[negative], types[negative])
        single = Triplets(*batch.triplets(1))
        alike = similarity_of_types(x, titles, has, single, MARGIN)
        semantic = visual_semantic(x, titles, has, single, MARGIN)
        sparsity = self.masks_of(types[given], types[positive]).sum(1).mean()
        return (
            hinge(near, far, MARGIN)
            + SIMILARITY * alike
            + SEMANTIC * semantic
            + LENGTH * x.norm() / math.sqrt(len(x))
            + SPARSITY * sparsity
        )


def fit(items: Items, train: Lists, valid: Questions, seed: int, budget: Budget) -> Scorer:
    """The scorer after training on outfits; the pass is chosen on `valid`."""

    def make() -> TypeAware:
        return TypeAware(items.num_types, items.words.shape[1], budget.dim, budget.encoder)

    return trained(make, items, train, valid, seed, budget, "Type-aware")
