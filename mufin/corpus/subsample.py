"""Fewer products, relations still dense: how a large catalog becomes one for a small machine."""

from __future__ import annotations

import numpy as np

from mufin.ragged import Lists

ROUNDS = 200  # steps of the growth; more of them follow the relations more closely


def dense_subsample(relations: Lists, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size,) ascending products that keep their relations dense.

    Grown from random starts, in each step by those with most relations, either way, to what is there already; a uniform
    sample of a part p of the products would keep only p of each one's relations.
    """
    back = relations.transpose(len(relations))
    degree = np.diff(relations.offsets) + np.diff(back.offsets)
    taken, links = np.zeros(len(relations), bool), np.zeros(len(relations), np.int64)
    lot = rng.permutation(len(relations))  # breaks ties
    starts = iter(np.lexsort((lot, degree == 0)))  # products without any relation come last
    frontier, chosen, left = np.zeros(0, np.int64), [], min(size, len(relations))
    while left:
        if not len(frontier):
            frontier = np.array([next(s for s in starts if not taken[s])])
        best = np.lexsort((lot[frontier], -links[frontier]))
        step = frontier[best[: min(left, max(1, size // ROUNDS))]]
        taken[step] = True
        chosen.append(step)
        left -= len(step)
        around = np.concatenate([relations.take(step).values, back.take(step).values])
        np.add.at(links, around, 1)
        frontier = np.union1d(frontier, around)
        frontier = frontier[~taken[frontier]]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
