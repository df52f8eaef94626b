"""S-VAL: vectors of pictures from colours, patches and textures, without any outfit.

Kim et al., "Self-supervised Visual Attribute Learning for Fashion Compatibility", ICCV workshops
2021 (VIPriors; arXiv 2008.00348).

As published: the network learns from pictures alone, by three tasks. It predicts the RGB histogram
of a picture; it tells shapeless local patches of a picture from those of other pictures (instance
discrimination); and it does the same by textures, the Gram matrices of feature maps. No outfit is
used in training, and none of valid but to choose the pass, as for all rivals.

Differences, where we could read no more than the abstract and the summary of MUFIN, App. C: the
patches are squares of half the side; instance discrimination contrasts two patches per picture
within a batch, in place of a memory bank; the three losses have the same weight; an item's vector
is that of the whole picture in the three parts (hidden layer of the colour head, patch vector,
texture vector), each of length 1. Histograms have 16 bins per channel and leave out pixels of pure
white, the background. The picture encoder is that of `backbone.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.backbone import Architecture, Backbone, as_floats
from mufin.baselines.outfits.batches import Batch
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.losses import euclidean
from mufin.baselines.outfits.scoring import Scorer
from mufin.baselines.outfits.training import Budget, trained
from mufin.baselines.outfits.transforms import crops
from mufin.ragged import Lists

BINS = 16  # of a channel's histogram
TEMPERATURE = 0.1


class SVal(nn.Module):
    """d(a, b) is Euclidean, on unit-norm vectors of colour, patch and texture side by side."""

    def __init__(self, dim: int, encoder: Architecture):
        super().__init__()
        self.pictures = Backbone(dim, encoder)
        self.colour = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.histogram = nn.Linear(dim, 3 * BINS)
        self.patch = nn.Linear(dim, dim)
        maps = self.pictures.maps_width
        self.texture = nn.Linear(maps * (maps + 1) // 2, dim)

    def parts(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, D) each: hidden layer of colours; patch and texture, both of unit norm."""
        x, maps = self.pictures.with_maps(pixels)
        texture = F.normalize(self.texture(gram(maps)), dim=1)
        return self.colour(x), F.normalize(self.patch(x), dim=1), texture

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, 3 D), unit norm."""
        colour, patch, texture = self.parts(pixels)
        return F.normalize(torch.cat([F.normalize(colour, dim=1), patch, texture], 1), dim=1)

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """(...) in [0, 2]; types are not used. See `Pairwise`."""
        return euclidean(a, b)

    def loss(self, batch: Batch) -> Tensor:
        """() histograms, patches and textures; the outfits of the batch are not used."""
        pictures = as_floats(batch.pixels)
        colour, _, _ = self.parts(batch.pixels)
        guess = self.histogram(colour).view(-1, 3, BINS).log_softmax(2)
        histograms = F.kl_div(guess, histogram(pictures), reduction="none").sum(2).mean()
        size = batch.pixels.shape[1] // 2
        both = torch.cat([crops(pictures, size), crops(pictures, size)])
        _, patch, texture = self.parts(both)
        return histograms + same_picture(*patch.chunk(2)) + same_picture(*texture.chunk(2))


def gram(maps: Tensor) -> Tensor:
    """(n, C (C + 1) / 2): the Gram matrix of maps (n, C, h, w), per place, above the diagonal."""
    flat = maps.flatten(2)
    products = flat @ flat.transpose(1, 2) / flat.shape[2]
    row, column = torch.triu_indices(maps.shape[1], maps.shape[1])
    return products[:, row, column]


def histogram(pictures: Tensor) -> Tensor:
    """(n, 3, BINS) float32: the share of pixels in each bin, by channel, of (n, 3, S, S) in [0, 1].

    Without pixels of pure white; all pixels of a picture that has no other.
    """
    n = len(pictures)
    shown = (pictures < 1).any(1)  # (n, S, S)
    shown = (shown | ~shown.flatten(1).any(1)[:, None, None]).flatten(1).float()
    bins = (pictures * BINS).long().clamp(0, BINS - 1).flatten(2)  # (n, 3, pixels)
    counts = torch.zeros(n, 3, BINS).scatter_add_(2, bins, shown[:, None].expand_as(bins))
    return counts / shown.sum(1)[:, None, None]


def same_picture(one: Tensor, other: Tensor) -> Tensor:
    """() cross-entropy of finding a patch's other patch among those of all pictures.

    Both are (n, D) of unit norm, row for row of the same pictures.
    """
    logits, here = one @ other.T / TEMPERATURE, torch.arange(len(one))
    return (F.cross_entropy(logits, here) + F.cross_entropy(logits.T, here)) / 2


def fit(items: Items, train: Lists, valid: Questions, seed: int, budget: Budget) -> Scorer:
    """The scorer after training on the pictures of outfits; the pass is chosen on `valid`."""

    def make() -> SVal:
        return SVal(budget.dim, budget.encoder)

    return trained(make, items, train, valid, seed, budget, "S-VAL")
