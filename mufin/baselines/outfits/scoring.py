"""Scores of answers and of outfits from a rival's distances between pairs of items."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.items import Items
from mufin.ragged import Lists

NUMBERS = 2**22  # of vectors (float32) gathered at once: 16 MB
PICTURES = 256  # encoded at once


class Pairwise(Protocol):
    """A network that gives each item a vector and each pair of items a distance."""

    def vectors(self, pixels: Tensor) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, D)."""

    def distance(self, a: Tensor, a_types: Tensor, b: Tensor, b_types: Tensor) -> Tensor:
        """The distances of given items `a` (..., D) and answers `b` (..., D).

        Their types are (...) int64. All four are broadcast.
        """


class Scorer:
    """Judges by the mean distance between items (Vasileva et al., ECCV 2018, Sec. 4)."""

    def __init__(self, model: Pairwise, vectors: Tensor, types: np.ndarray):
        self.model, self.vectors = model, vectors  # (N, D) of all items
        self.types = torch.from_numpy(types)  # (N,)

    @torch.no_grad()
    def fill(self, questions: Questions) -> np.ndarray:
        """(Q, A) float32: minus each answer's mean distance to the given items.

        -inf where a question has fewer than A answers; 0 where nothing is given.
        """
        given, answers = questions.items.padded(), questions.answers.padded()
        out = np.empty(answers.shape, np.float32)
        for rows in self._chunks(len(given), given.shape[1] * answers.shape[1]):
            a, b = torch.from_numpy(given[rows]), torch.from_numpy(answers[rows])
            out[rows] = -self._means(a[:, None, :], b[:, :, None], a[:, None, :] >= 0).numpy()
        out[answers < 0] = -np.inf
        return out

    @torch.no_grad()
    def compatibility(self, outfits: Lists) -> np.ndarray:
        """(n,) float32: minus the mean distance of two items of an outfit, in both orders.

        NaN for an outfit of fewer than two items.
        """
        padded = outfits.padded()
        out = np.empty(len(padded), np.float32)
        apart = ~torch.eye(padded.shape[1], dtype=torch.bool)
        for rows in self._chunks(len(padded), padded.shape[1] ** 2):
            a = torch.from_numpy(padded[rows])
            pairs = (a >= 0)[:, :, None] & (a >= 0)[:, None, :] & apart
            means = self._means(a[:, :, None], a[:, None, :], pairs, (1, 2))
            out[rows] = -means.numpy()
        out[outfits.lengths() < 2] = np.nan
        return out

    def _means(self, a: Tensor, b: Tensor, there: Tensor, over: tuple[int, ...] = (2,)) -> Tensor:
        """The means of the distances of items `a` and `b`, ids below 0 padding, where `there`."""
        types, vectors = self.types, self.vectors
        distance = self.model.distance(vectors[a], types[a], vectors[b], types[b])
        total = torch.where(there, distance, 0.0).sum(over)
        return total / there.expand_as(distance).sum(over).clamp_min(1)

    def _chunks(self, count: int, pairs: int) -> list[slice]:
        """Rows 0 to `count` in parts whose pairs fit in the budget of memory."""
        step = max(1, NUMBERS // max(1, pairs * self.vectors.shape[1]))
        return [slice(start, start + step) for start in range(0, count, step)]


@torch.no_grad()
def vectors_of(model: Pairwise, items: Items, rows: np.ndarray) -> Tensor:
    """(N, D) of all items; zeros except at `rows`, (n,) int64."""
    starts = range(0, len(rows), PICTURES)
    some = [model.vectors(torch.from_numpy(items.pixels[rows[i : i + PICTURES]])) for i in starts]
    found = torch.cat(some) if some else torch.zeros(0, 1)
    out = torch.zeros(len(items), found.shape[1])
    out[torch.from_numpy(rows)] = found
    return out
