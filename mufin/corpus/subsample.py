"""A part of the products whose relations stay dense: a small catalog from a large one.

The paper has no counterpart. A uniform sample of a fraction p of the products would keep only a
fraction p of each product's relations.
"""

from __future__ import annotations

import numpy as np

from mufin.ragged import Lists

ROUNDS = 200  # steps of the growth; more steps follow the relations more closely and cost more


def dense_subsample(relations: Lists, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size,) int64: ascending products that have many relations among each other.

    The set grows from a random product. Each step adds the products that have the most relations,
    in either direction, with the set so far. When no neighbour is left, another random product is
    added.
    """
    back = relations.transpose(len(relations))  # row p: the products that are related to p
    degree = relations.lengths() + back.lengths()
    taken = np.zeros(len(relations), bool)
    links = np.zeros(len(relations), np.int64)  # relations of each product with the set so far
    lot = rng.permutation(len(relations))  # decides between products with equally many links
    # Where to start and to start again: in random order, products without any relation last.
    starts = iter(np.lexsort((lot, degree == 0)))
    frontier = np.zeros(0, np.int64)  # products with a relation to the set that are not in it
    chosen: list[np.ndarray] = []
    left = min(size, len(relations))
    while left:
        if not len(frontier):
            frontier = np.array([next(s for s in starts if not taken[s])])
        best = np.lexsort((lot[frontier], -links[frontier]))
        step = frontier[best[: min(left, max(1, size // ROUNDS))]]
        taken[step] = True
        chosen.append(step)
        left -= len(step)
        around = np.concatenate([relations.take(step).values, back.take(step).values])
        np.add.at(links, around, 1)  # not `links[around] += 1`, which counts a repeat only once
        frontier = np.union1d(frontier, around)
        frontier = frontier[~taken[frontier]]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
