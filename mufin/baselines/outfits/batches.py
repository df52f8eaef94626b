"""Batches of whole outfits, each item of an outfit once its blank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mufin.baselines.outfits.items import Items
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True)
class Batch:
    """The U distinct items of some outfits, and Q blanks: an outfit without one of its items.

    Each picture is encoded once, however many blanks it is in. `given`, `positive` and `negatives`
    are places in the U items.
    """

    pixels: Tensor  # (U, S, S, 3) uint8, half of them mirrored
    words: Tensor  # (U, W) float32
    types: Tensor  # (U,) int64
    rows: Tensor  # (U,) int64, of `Items`
    outfit: Tensor  # (U,) int64, the (first) outfit of the batch that an item is in
    given: Tensor  # (Q, K) int64, -1 padded: the rest of the outfit
    positive: Tensor  # (Q,) int64: what fills the blank
    negatives: Tensor  # (Q, M) int64, -1 padded: items of the same type in other outfits

    def triplets(self, most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(T,) int64 each: a given item, the positive, and a negative of the positive's type.

        With at most `most` negatives per blank.
        """
        negatives = self.negatives[:, :most]
        there = (self.given >= 0)[:, :, None] & (negatives >= 0)[:, None, :]  # (Q, K, M)
        blank, k, m = torch.nonzero(there, as_tuple=True)
        return self.given[blank, k], self.positive[blank], negatives[blank, m]


def batches(
    items: Items, outfits: Lists, size: int, negatives: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """One pass over `outfits`, rows of `items`, in random order and batches of about `size`.

    A blank whose batch has no other item of its type is left out, as is a batch without blanks.
    """
    useful = np.flatnonzero(outfits.lengths() > 1)
    parts = max(1, len(useful) // size)
    for rows in np.array_split(rng.permutation(useful), parts):
        if len(rows) and len((batch := batch_of(items, outfits.take(rows), negatives, rng)).given):
            yield batch


def batch_of(items: Items, outfits: Lists, negatives: int, rng: np.random.Generator) -> Batch:
    """The batch of these outfits, with at most `negatives` negatives per blank."""
    rows, first, places = np.unique(outfits.values, return_index=True, return_inverse=True)
    padded = Lists(outfits.offsets, places).padded()  # (B, K + 1)
    outfit, column = (
        outfits.rows(),
        np.arange(len(places)) - np.repeat(outfits.offsets[:-1], outfits.lengths()),
    )
    wrong = negatives_of(items.types[rows], places, outfit, negatives, rng)
    kept = wrong[:, 0] >= 0
    given = without_column(padded[outfit[kept]], column[kept])
    pixels = items.pixels[rows]
    mirrored = rng.random(len(rows)) < 0.5
    pixels[mirrored] = pixels[mirrored, :, ::-1]
    return Batch(
        torch.from_numpy(pixels),
        torch.from_numpy(items.words[rows].toarray()),
        torch.from_numpy(items.types[rows]),
        torch.from_numpy(rows),
        torch.from_numpy(outfit[first]),
        torch.from_numpy(given),
        torch.from_numpy(places[kept]),
        torch.from_numpy(wrong[kept]),
    )


def without_column(padded: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(Q, K): the rows of `padded` (Q, K + 1) without the value at `column` (Q,) of each."""
    keep = np.arange(padded.shape[1]) != column[:, None]
    return padded[keep].reshape(len(padded), padded.shape[1] - 1)


def negatives_of(
    types: np.ndarray,
    places: np.ndarray,
    outfit: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(n, count) int64, -1 padded: random items of the same type for each of n items in outfits.

    `types` (U,) are those of the distinct items; `places` (n,) and `outfit` (n,) say which item is
    in which outfit. No item of its own outfit is drawn, and none twice for one blank.
    """
    inside = np.zeros((outfit.max(initial=-1) + 1, len(types)), bool)  # (B, U)
    inside[outfit, places] = True
    possible = (types[places][:, None] == types) & ~inside[outfit]  # (n, U)
    keys = np.where(possible, rng.random(possible.shape), np.inf)
    count = min(count, keys.shape[1])
    drawn = np.argsort(keys, axis=1, kind="stable")[:, :count]
    return np.where(np.isfinite(np.take_along_axis(keys, drawn, 1)), drawn, -1)
