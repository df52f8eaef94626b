"""CSA-Net: masks of subspaces, weighted by the types of both items, and an outfit ranking loss.

Lin et al., "Fashion Outfit Complementary Item Retrieval", CVPR 2020.

As published: a picture has a vector x of 64 numbers. Of k = 5 learnt masks, the pair of types
(u of the given item, v of the answer) attends to each with a weight w_i(u, v): two linear layers
on both one-hot types, and a softmax. The vector for the pair is sum_i w_i (x m_i), for the given
item as for the answer. The distance of an outfit and an item is the mean over the given items. The
outfit ranking loss is max(0, D(positive) - D_N + 0.3), where D_N is the least of the distances to
negatives of the positive's type, of which the semi-hard are used. Titles are not used.

Differences: the picture encoder (`backbone.py`) and the rate; x is scaled to length 1, since
without it all distances can shrink to 0, which the text leaves open; the hidden layer of the
attention has 64 units and the masks start as those of `type_aware.py` (both not in the text). A
negative is semi-hard if it is farther than the positive; where none is, the farthest is used, as
FaceNet does. Each item of a batch of outfits is the positive of the rest once, with negatives from
the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.backbone import Architecture, Backbone
from mufin.baselines.outfits.batches import Batch
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.losses import euclidean
from mufin.baselines.outfits.scoring import Pairwise, Scorer
from mufin.baselines.outfits.training import Budget, trained
from mufin.ragged import Lists

SUBSPACES, HIDDEN, MARGIN = 5, 64, 0.3


class TypeAttention(nn.Module):
    """Weights (..., k) of k subspaces for types (...) of given item and answer; they sum to 1."""

    def __init__(self, num_types: int, subspaces: int):
        super().__init__()
        self.num_types = num_types
        self.layers = nn.Sequential(
            nn.Linear(2 * num_types, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, subspaces)
        )

    def forward(self, a_types: Tensor, b_types: Tensor) -> Tensor:
        types = torch.arange(self.num_types)
        pairs = torch.cartesian_prod(types, types)  # all of them: fewer than pairs of items
        table = self.layers(F.one_hot(pairs, self.num_types).flatten(1).float()).softmax(-1)
        return table[a_types * self.num_types + b_types]


class CsaNet(nn.Module):
    """d(a, b) = |(x_a - x_b) sum_i w_i(u, v) m_i|, with types u of the given item and v."""

    def __init__(self, num_types: int, dim: int, encoder: Architecture):
        super().__init__()
        self.pictures = Backbone(dim, encoder)
        self.masks = nn.Parameter(torch.empty(SUBSPACES, dim).normal_(0.9, 0.7))
        self.attention = TypeAttention(num_types, SUBSPACES)

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, D), unit norm."""
        return F.normalize(self.pictures(pixels), dim=1)

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """(...) of vectors (..., D) and their types; see `Pairwise`."""
        mask = self.attention(a_types, b_types) @ self.masks  # (..., D)
        return euclidean(a * mask, b * mask)

    def loss(self, batch: Batch) -> Tensor:
        """() the outfit ranking loss."""
        return outfit_ranking(self, self.vectors(batch.pixels), batch, MARGIN)


def outfit_ranking(model: Pairwise, x: Tensor, batch: Batch, margin: float) -> Tensor:
    """() the mean of max(0, D_p - D_N + margin) over blanks (Lin et al., eq. 5 to 7).

    `x` (U, D) are vectors of the items of the batch.
    """
    near = outfit_distance(model, x, batch, batch.positive[:, None])[:, 0]  # (Q,)
    far = outfit_distance(model, x, batch, batch.negatives)  # (Q, M)
    return F.relu(near - semi_hard(near, far, batch.negatives >= 0) + margin).mean()


def outfit_distance(model: Pairwise, x: Tensor, batch: Batch, answers: Tensor) -> Tensor:
    """(Q, A) mean distances of the given items to the answers (Q, A), places of the batch."""
    given, types = batch.given[:, :, None], batch.types
    other = answers[:, None, :]
    distance = model.distance(x[given], types[given], x[other], types[other])  # (Q, K, A)
    there = given >= 0
    return torch.where(there, distance, 0.0).sum(1) / there.sum(1).clamp_min(1)


def semi_hard(near: Tensor, far: Tensor, there: Tensor) -> Tensor:
    """(Q,) the least of the distances `far` (Q, M) above `near` (Q,); the largest if none is.

    Only of negatives that are `there`, (Q, M) bool; each row has one.
    """
    above = torch.where(there & (far > near[:, None]), far, torch.inf).amin(1)
    largest = torch.where(there, far, -torch.inf).amax(1)
    return torch.where(above.isfinite(), above, largest)


def fit(items: Items, train: Lists, valid: Questions, seed: int, budget: Budget) -> Scorer:
    """The scorer after training on outfits; the pass is chosen on `valid`."""

    def make() -> CsaNet:
        return CsaNet(items.num_types, budget.dim, budget.encoder)

    return trained(make, items, train, valid, seed, budget, "CSA-Net")
