"""Losses that several rivals share: hinges on distances between pictures and titles."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-12  # under the root, whose slope at 0 is infinite


class Triplets(NamedTuple):
    """T triplets: rows of the items of a batch."""

    given: Tensor  # (T,) int64, the anchor: another item of the outfit
    positive: Tensor  # (T,) int64
    negative: Tensor  # (T,) int64, of the positive's type


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """(...) the distances of vectors (..., D)."""
    return (a - b).square().sum(-1).add(TINY).sqrt()


def hinge(near: Tensor, far: Tensor, margin: float, there: Tensor | None = None) -> Tensor:
    """() the mean of max(0, near - far + margin), over those pairs that are `there`, or all."""
    loss = F.relu(near - far + margin)
    if there is None:
        return loss.mean()
    return (loss * there).sum() / there.sum().clamp_min(1)


def same_type_similarity(
    v: Tensor, triplets: Triplets, margin: float, there: Tensor | None = None
) -> Tensor:
    """() L_sim of Vasileva et al. (Sec. 3.2) on vectors (U, D) of pictures or of titles.

    Positive and negative are of one type, so they are nearer to each other than to the given item,
    which is of another.
    """
    given, positive, negative = (v[rows] for rows in triplets)
    near = euclidean(positive, negative)
    one = hinge(near, euclidean(given, negative), margin, there)
    return (one + hinge(near, euclidean(given, positive), margin, there)) / 2


def similarity_of_types(
    pictures: Tensor, titles: Tensor, has: Tensor, triplets: Triplets, margin: float
) -> Tensor:
    """() L_sim of pictures (U, D) plus that of titles (U, D), of items that all have a title.

    `has` (U,) float32 is 1 where there is one.
    """
    there = torch.stack([has[rows] for rows in triplets]).prod(0)
    alike = same_type_similarity(pictures, triplets, margin)
    return alike + same_type_similarity(titles, triplets, margin, there)


def visual_semantic(
    pictures: Tensor, titles: Tensor, has: Tensor, triplets: Triplets, margin: float
) -> Tensor:
    """() L_vse of Vasileva et al. (Sec. 3.2): a picture is nearest to its own title.

    For each of the three items of a triplet, the pictures of the other two are the negatives.
    `pictures` and `titles` are (U, D), `has` (U,) float32 is 1 where there is a title.
    """
    total = torch.zeros(())
    for own, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        title, there = titles[triplets[own]], has[triplets[own]]
        near = euclidean(pictures[triplets[own]], title)
        for other in others:
            far = euclidean(pictures[triplets[other]], title)
            total = total + hinge(near, far, margin, there) / 6
    return total


class TitleBranch(nn.Module):
    """Unit-norm vectors (n, D) of title features (n, W): two layers (Vasileva et al., Sec. 3.2)."""

    def __init__(self, words: int, dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(words, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, dim)
        )

    def forward(self, words: Tensor) -> Tensor:
        return F.normalize(self.layers(words), dim=1)
