"""Relations between products: related ids of the catalog, and products of the same baskets.

A relation names a product and one that can be the answer for it. Its weight says how strong it is:
training draws strong relations more often, the truth of the evaluation does not know weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.corpus.cleaning import clean_relations
from mufin.corpus.splits import mapped
from mufin.ragged import Lists, offsets_of

PRODUCTS = 50_000  # whose relations are united at once, to bound the memory
LEAST = 1e-6  # of a weight from a score, beside 1 of the strongest: no pair is lost


@dataclass(frozen=True, slots=True)
class Relations:
    """The products that each product is related to, ascending and distinct, and the weights."""

    lists: Lists  # (P,) rows of products
    weights: np.ndarray | None = None  # (nnz,) float32 > 0, None: all 1

    def __len__(self) -> int:
        return len(self.lists)

    def restricted(self, keep: np.ndarray, position: np.ndarray) -> Relations:
        """Those among the products `keep`, in that order, under their new numbers `position`."""
        lists = mapped(self.lists.take(keep), position)
        if self.weights is None:
            return Relations(lists)
        at, _ = self.lists.positions(keep)
        return Relations(lists, self.weights[at][position[self.lists.values[at]] >= 0])

    def of_pairs(self, source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
        """(m,) float32: the weights of pairs that are relations; None if all weights are equal."""
        if self.weights is None:
            return None
        keys = self.lists.rows() * len(self) + self.lists.values  # ascending, as the rows are
        weights = self.weights[np.searchsorted(keys, source * len(self) + target)]
        return None if len(weights) == 0 or (weights == weights[0]).all() else weights


def no_relations(products: int) -> Relations:
    """`products` rows without relations."""
    return Relations(Lists(np.zeros(products + 1, np.int64), np.zeros(0, np.int64)))


def gathered(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, products: int
) -> tuple[Relations, dict[str, int]]:
    """The relations of (nnz,) pairs of products in [0, products), and the dropped pairs by reason.

    Of a pair that occurs several times, the largest weight counts.
    """
    lists, dropped = clean_relations(source, target, products)
    other = source != target
    keys = source[other].astype(np.int64) * products + target[other]
    order = np.lexsort((weight[other], keys))  # by pair, the largest weight last
    last = np.append(keys[order][1:] != keys[order][:-1], True)[: len(order)]
    return Relations(lists, weight[other][order][last].astype(np.float32)), dropped


def summed(
    row: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, target, weight) of the distinct pairs, ascending, with the sums of their weights.

    Several columns of a catalog can name one pair, in the same row.
    """
    base = int(target.max(initial=0)) + 1
    keys, inverse = np.unique(row.astype(np.int64) * base + target, return_inverse=True)
    sums = np.bincount(inverse, weight, minlength=len(keys)).astype(np.float32)
    return keys // base, keys % base, sums


def of_scores(lists: Lists, scores: np.ndarray) -> Relations:
    """Relations weighted by scores (nnz,) > 0, so that the strongest of each product has weight 1.

    Scores of products are not comparable: a lift is large for rare products, a count for popular
    ones. Weights of related ids are 1 as well, where the catalog does not say otherwise. The rows
    of `lists` are ascending.
    """
    best = np.zeros(len(lists), np.float32)
    some = np.flatnonzero(lists.lengths())
    best[some] = np.maximum.reduceat(scores, lists.offsets[some]) if len(some) else 0
    weights = scores / np.repeat(best, lists.lengths())
    np.maximum(weights, LEAST, out=weights)
    return Relations(Lists(lists.offsets, lists.values.astype(np.int64)), weights)


def united(a: Relations, b: Relations) -> Relations:
    """The relations of either; one that is in both has the sum of its weights."""
    if not len(a.lists.values) or not len(b.lists.values):
        return a if len(a.lists.values) else b
    values, weights, counts = [], [], []
    for start in range(0, len(a), PRODUCTS):
        parts = [_part(r, start, min(start + PRODUCTS, len(a))) for r in (a, b)]
        rows, target, weight = summed(*(np.concatenate(both) for both in zip(*parts)))
        counts.append(np.bincount(rows, minlength=min(PRODUCTS, len(a) - start)))
        values.append(target)
        weights.append(weight)
    lists = Lists(offsets_of(np.concatenate(counts)), np.concatenate(values))
    return Relations(lists, np.concatenate(weights))


def _part(relations: Relations, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, value, weight) of the pairs of products from `start` to `end`; rows begin at 0."""
    offsets = relations.lists.offsets[start : end + 1]
    pairs = slice(offsets[0], offsets[-1])
    values, rows = (
        relations.lists.values[pairs],
        np.repeat(np.arange(end - start), np.diff(offsets)),
    )
    if relations.weights is None:
        return rows, values, np.ones(len(values), np.float32)
    return rows, values, relations.weights[pairs]
