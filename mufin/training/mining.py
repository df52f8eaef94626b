"""Which positives and negatives a step sees (MUFIN Sec. 3.1): hard positives, in-batch negatives, shortlist negatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mufin.clustering import balanced_halves
from mufin.ragged import Lists


def eligible_positives(by_label: Lists, similarity: np.ndarray, threshold: float) -> np.ndarray:
    """(nnz,) bool over `by_label.values`: the hard positives, <z_l, x_i> <= threshold; a label with none keeps its least
    similar datapoint (Module I)."""
    hard = similarity <= threshold
    rows = by_label.rows()
    none = ~(np.bincount(rows[hard], minlength=len(by_label)) > 0)
    order = np.lexsort((similarity, rows))
    first = order[
        by_label.offsets[:-1][np.diff(by_label.offsets) > 0]
    ]  # the least similar of each label
    hard[first[none[rows[first]]]] = True
    return hard


def draw(
    lists: Lists,
    rows: np.ndarray,
    k: int,
    rng: np.random.Generator,
    eligible: np.ndarray | None = None,
):
    """At most k distinct values of each of `rows`, at random among the eligible: (picks (len(rows), k), mask bool)."""
    positions, offsets = lists.positions(rows)
    keys = rng.random(len(positions))
    if eligible is not None:
        keys[~eligible[positions]] = 2.0
    row = np.repeat(np.arange(len(rows)), np.diff(offsets))
    order = np.lexsort((keys, row))
    rank = np.arange(len(order)) - offsets[:-1][row]  # rows are sorted, so is `row[order]`
    keep = (rank < k) & (keys[order] < 2.0)
    picks = np.zeros((len(rows), k), np.int64)
    mask = np.zeros((len(rows), k), bool)
    picks[row[keep], rank[keep]] = lists.values[positions[order[keep]]]
    mask[row[keep], rank[keep]] = True
    return picks, mask


class Relevance:
    """Looks up which of some columns are relevant to some rows, without the full matrix."""

    def __init__(self, lists: Lists, num_columns: int):
        self.lists, self.position = lists, np.full(num_columns, -1, np.int64)

    def block(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(len(rows), len(columns)) bool for distinct `columns`."""
        taken = self.lists.take(rows)
        self.position[columns] = np.arange(len(columns))
        at = self.position[taken.values]
        self.position[columns] = -1
        out = np.zeros((len(rows), len(columns)), bool)
        out[taken.rows()[at >= 0], at[at >= 0]] = True
        return out


def hardest(scores: Tensor, allowed: Tensor, k: int, random: bool = False) -> tuple[Tensor, Tensor]:
    """The k highest-scored allowed columns a row (random ones if `random`): scores (A, k) and mask (A, k).

    N_l of Module I: `allowed` leaves out whatever is itself relevant to l.
    """
    with torch.no_grad():
        keys = torch.rand_like(scores) if random else scores.detach()
        keys = keys.masked_fill(~allowed, -torch.inf)
        index = keys.topk(min(k, scores.shape[1]), 1).indices
    return scores.gather(1, index), allowed.gather(1, index)


def shortlist_negatives(shortlist: Lists, truth: Lists, excluded: Lists, num_labels: int) -> Lists:
    """Each datapoint's shortlist without its positives and filter pairs: the hard negatives of Module IV."""

    def keys(lists: Lists) -> np.ndarray:
        return lists.rows() * num_labels + lists.values

    keep = ~np.isin(keys(shortlist), np.concatenate([keys(truth), keys(excluded)]))
    return shortlist.only(keep)


def balanced_clusters(vectors: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Clusters of at most `size` similar rows, as NGAME's batches: halved until they are small enough."""
    done, open_ = [], [np.arange(len(vectors))]
    while open_:
        members = open_.pop()
        if len(members) <= size:
            done.append(members)
            continue
        open_ += [members[half] for half in balanced_halves(vectors[members], rng)]
    return done
