"""SSVR: outfits, pseudo-outfits of unlabelled items, and consistency under changes of pictures.

Revanur et al., "Semi-Supervised Visual Representation Learning for Fashion Compatibility",
RecSys 2021 (arXiv 2109.08052).

As published: a Siamese network with a triplet loss on labelled outfits. For each labelled outfit
of a batch, each item is matched with the nearest unlabelled item, and the pseudo-outfit of the
matches (with pseudo-negatives) has a triplet loss too. A third triplet loss makes vectors
consistent: a picture is nearer to its own affine transformation (other shape, same colours) than
to itself in other colours (jitter, grey). Titles are not used.

Differences: all outfits of train are labelled, so the unlabelled items are those of other outfits
of the batch; a match is of the same type. Affine changes, jitter, the margin of 0.3 and the weights
of the two further losses (`PSEUDO`, `CONSISTENT`) are ours, as we could read no more than the
abstract and the summary of MUFIN, App. C. A step encodes each picture three times. The picture
encoder is that of `backbone.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.backbone import Architecture, Backbone, as_floats
from mufin.baselines.outfits.batches import Batch
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.losses import euclidean, hinge
from mufin.baselines.outfits.scoring import Scorer
from mufin.baselines.outfits.training import Budget, trained
from mufin.baselines.outfits.transforms import moved, recoloured
from mufin.ragged import Lists

MARGIN = 0.3
PSEUDO, CONSISTENT = 0.1, 0.1  # weights of the losses


class Ssvr(nn.Module):
    """d(a, b) is Euclidean, on unit-norm vectors."""

    def __init__(self, dim: int, encoder: Architecture):
        super().__init__()
        self.pictures = Backbone(dim, encoder)

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8, or (n, 3, S, S) float32 in [0, 1] -> (n, D), unit norm."""
        return F.normalize(self.pictures(pixels), dim=1)

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """(...) in [0, 2]; types are not used. See `Pairwise`."""
        return euclidean(a, b)

    def loss(self, batch: Batch) -> Tensor:
        """() the triplet losses of outfits, of pseudo-outfits and of changed pictures."""
        pictures = as_floats(batch.pixels)
        three = torch.cat([pictures, moved(pictures), recoloured(pictures)])
        x, shape, colour = self.vectors(three).chunk(3)
        triplets = batch.triplets()
        match, found = nearest_alike(x.detach(), batch.types, batch.outfit)
        pseudo = tuple(match[rows] for rows in triplets)
        there = torch.stack([found[rows] for rows in triplets]).all(0).float()
        return (
            triplet_loss(x, triplets)
            + PSEUDO * triplet_loss(x, pseudo, there)
            + CONSISTENT * hinge(euclidean(x, shape), euclidean(x, colour), MARGIN)
        )


def triplet_loss(x: Tensor, triplets: tuple[Tensor, ...], there: Tensor | None = None) -> Tensor:
    """() the hinge of triplets (given, positive, negative) of vectors (U, D), where `there`."""
    given, positive, negative = (x[rows] for rows in triplets)
    return hinge(euclidean(given, positive), euclidean(given, negative), MARGIN, there)


def nearest_alike(x: Tensor, types: Tensor, outfit: Tensor) -> tuple[Tensor, Tensor]:
    """(U,) int64: of each item the nearest of the same type in another outfit; (U,) bool: if any.

    `x` (U, D) are vectors; `types` and `outfit` (U,) int64.
    """
    other = (types[:, None] == types) & (outfit[:, None] != outfit)
    distance = torch.where(other, torch.cdist(x, x), torch.inf)
    return distance.argmin(1), other.any(1)


def fit(items: Items, train: Lists, valid: Questions, seed: int, budget: Budget) -> Scorer:
    """The scorer after training on outfits; the pass is chosen on `valid`."""

    def make() -> Ssvr:
        return Ssvr(budget.dim, budget.encoder)

    return trained(make, items, train, valid, seed, budget, "SSVR")
