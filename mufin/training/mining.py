"""The positives and negatives that a training step sees (MUFIN Sec. 3.1, Modules I and IV).

Hard positives are true pairs with a low similarity, hard negatives are false pairs with a high one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mufin.clustering import balanced_halves
from mufin.ragged import Lists


def eligible_positives(by_label: Lists, similarity: np.ndarray, threshold: float) -> np.ndarray:
    """(nnz,) bool: the hard positives, <z_l, x_i> <= threshold (MUFIN Sec. 3.1, Module I).

    `by_label` lists the datapoints of each label, `similarity` (nnz,) is that of each such pair. A
    label without a hard positive keeps its least similar datapoint.
    """
    hard = similarity <= threshold
    rows = by_label.rows()  # the label of each pair
    none = ~(np.bincount(rows[hard], minlength=len(by_label)) > 0)  # labels without a hard positive
    # Sorted by (label, similarity), the first pair of a label is the least similar one.
    order = np.lexsort((similarity, rows))
    least = order[by_label.offsets[:-1][np.diff(by_label.offsets) > 0]]
    hard[least[none[rows[least]]]] = True
    return hard


def draw(
    lists: Lists,
    rows: np.ndarray,
    k: int,
    rng: np.random.Generator,
    eligible: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Up to k distinct values of each of the `rows`, drawn at random.

    Returns picks (len(rows), k) int64 and a mask of the same shape, false where a row has fewer.
    With `eligible` (nnz,) bool only these values of `lists` are drawn.
    """
    # Each value gets a random key, and each row takes the values with its k smallest keys. This
    # draws without replacement for all rows at once.
    positions, offsets = lists.positions(rows)
    keys = rng.random(len(positions))
    if eligible is not None:
        keys[~eligible[positions]] = 2.0  # above all random keys, which lie in [0, 1)
    row = np.repeat(np.arange(len(rows)), np.diff(offsets))  # of each value
    order = np.lexsort((keys, row))  # by row, then by key
    rank = np.arange(len(order)) - offsets[:-1][row]  # `row` is sorted, so `row[order]` equals it
    keep = (rank < k) & (keys[order] < 2.0)
    picks = np.zeros((len(rows), k), np.int64)
    mask = np.zeros((len(rows), k), bool)
    picks[row[keep], rank[keep]] = lists.values[positions[order[keep]]]
    mask[row[keep], rank[keep]] = True
    return picks, mask


class Relevance:
    """Looks up which of some columns are relevant to some rows, without the full matrix."""

    def __init__(self, lists: Lists, num_columns: int):
        self.lists = lists
        self.position = np.full(num_columns, -1, np.int64)  # of each column in a block, -1 = absent

    def block(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(len(rows), len(columns)) bool for distinct `columns`."""
        taken = self.lists.take(rows)
        self.position[columns] = np.arange(len(columns))
        at = self.position[taken.values]  # the column of each value in the block
        self.position[columns] = -1  # ready for the next block; clearing all would be slow
        out = np.zeros((len(rows), len(columns)), bool)
        out[taken.rows()[at >= 0], at[at >= 0]] = True
        return out


def hardest(scores: Tensor, allowed: Tensor, k: int, random: bool = False) -> tuple[Tensor, Tensor]:
    """The k allowed columns with the highest score per row, or k random ones if `random`.

    These are the negatives N_l of MUFIN Sec. 3.1, Module I, if `allowed` (A, M) bool leaves out
    everything that is relevant to anchor l. Returns their scores (A, k) and a mask (A, k), false
    where fewer than k are allowed.
    """
    with torch.no_grad():
        keys = torch.rand_like(scores) if random else scores.detach()
        keys = keys.masked_fill(~allowed, -torch.inf)
        # A row with fewer than k allowed columns also gets others, which the mask shows.
        index = keys.topk(min(k, scores.shape[1]), 1).indices
    return scores.gather(1, index), allowed.gather(1, index)


def shortlist_negatives(shortlist: Lists, truth: Lists, excluded: Lists, num_labels: int) -> Lists:
    """The shortlists without truth and filter pairs: the hard negatives of Module IV."""

    def keys(lists: Lists) -> np.ndarray:
        return lists.rows() * num_labels + lists.values  # one integer per datapoint-label pair

    keep = ~np.isin(keys(shortlist), np.concatenate([keys(truth), keys(excluded)]))
    return shortlist.only(keep)


def balanced_clusters(vectors: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Clusters of at most `size` similar rows of `vectors` (n, D), as in the batches of NGAME.

    All rows are halved by balanced 2-means until the parts are small enough. Returns row numbers.
    """
    done, todo = [], [np.arange(len(vectors))]
    while todo:
        members = todo.pop()
        if len(members) <= size:
            done.append(members)
            continue
        todo += [members[half] for half in balanced_halves(vectors[members], rng)]
    return done
