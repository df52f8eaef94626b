"""The positives and negatives that a training step sees (MUFIN Sec. 3.1, Modules I and IV).

Hard positives are true pairs with a low similarity, hard negatives are false pairs with a high one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mufin.artifacts.curated import Split
from mufin.clustering import balanced_halves
from mufin.ragged import Lists, offsets_of

AT_ONCE = 2**22  # shortlisted labels whose negatives are found at once


def positives_of(train: Split) -> tuple[Lists, np.ndarray | None]:
    """The labels of each train datapoint without its filter pairs, and the weights (nnz,) of these.

    A filter pair is neither positive nor negative. The weights are None if all are alike.
    """
    positives = train.labels.minus(train.excluded)
    if train.weights is None:
        return positives, None
    base = int(max(train.labels.values.max(initial=0), train.excluded.values.max(initial=0))) + 1
    excluded = train.excluded.rows() * base + train.excluded.values  # a pair as one integer
    kept = ~np.isin(train.labels.rows() * base + train.labels.values, excluded)
    return positives, train.weights[kept]


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
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Up to k distinct values of each of the `rows`, drawn at random.

    Returns picks (len(rows), k) int64 and a mask of the same shape, false where a row has fewer.
    With `eligible` (nnz,) bool only these values of `lists` are drawn. With `weights` (nnz,) > 0
    each draw takes one of the values that are left with a probability proportional to its weight;
    equal weights draw the same values as none.
    """
    # Each value gets a random key, and each row takes the values with its k smallest keys. This
    # draws without replacement for all rows at once.
    positions, offsets = lists.positions(rows)
    keys = rng.random(len(positions))
    if weights is not None:
        # Exponential variables with these rates: the smallest is each with probability w / sum w
        # (Efraimidis and Spirakis 2006). They rise with the random keys.
        keys = -np.log1p(-keys) / weights[positions]
    if eligible is not None:
        keys[~eligible[positions]] = np.inf  # above all random keys
    row = np.repeat(np.arange(len(rows)), np.diff(offsets))  # of each value
    order = np.lexsort((keys, row))  # by row, then by key
    rank = np.arange(len(order)) - offsets[:-1][row]  # `row` is sorted, so `row[order]` equals it
    keep = (rank < k) & (keys[order] < np.inf)
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
        out = np.zeros((len(rows), len(columns)), bool)
        row, column, _ = self._places(rows, columns)
        out[row, column] = True
        return out

    def weights(self, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(len(rows), len(columns)) float32: `weights` (nnz,) of `lists`, 0 where not relevant."""
        out = np.zeros((len(rows), len(columns)), np.float32)
        row, column, position = self._places(rows, columns)
        out[row, column] = weights[position]
        return out

    def _places(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, ...]:
        """Row and column in the block of the pairs that are in it, and their places in `lists`."""
        positions, offsets = self.lists.positions(rows)
        self.position[columns] = np.arange(len(columns))
        at = self.position[self.lists.values[positions]]  # the column of each value in the block
        self.position[columns] = -1  # ready for the next block; clearing all would be slow
        row = np.repeat(np.arange(len(rows)), np.diff(offsets))
        return row[at >= 0], at[at >= 0], positions[at >= 0]


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
    """The shortlists without truth and filter pairs: the hard negatives of Module IV.

    Datapoint after datapoint in blocks: `members` needs about 80 bytes per shortlisted label, and
    4.5 million datapoints have 450 million of these.
    """
    values, counts = [shortlist.values[:0]], [np.zeros(0, np.int64)]
    step = max(1, AT_ONCE * len(shortlist) // max(len(shortlist.values), 1))  # datapoints
    for start in range(0, len(shortlist), step):
        some, true, pairs = (x.between(start, start + step) for x in (shortlist, truth, excluded))
        left_out = members(some, true, num_labels) | members(some, pairs, num_labels)
        kept = some.only(~left_out)
        values.append(kept.values)
        counts.append(kept.lengths())
    return Lists(offsets_of(np.concatenate(counts)), np.concatenate(values))


def members(lists: Lists, others: Lists, num_labels: int) -> np.ndarray:
    """(nnz,) bool: which labels of each row of `lists` are in the same row of `others`."""

    def keys(pairs: Lists) -> np.ndarray:
        return pairs.rows() * num_labels + pairs.values  # one integer per datapoint-label pair

    return np.isin(keys(lists), keys(others))


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
