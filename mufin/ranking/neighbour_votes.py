"""Votes of the nearest train datapoints: their labels, by how near they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.ragged import Lists, offsets_of
from mufin.retrieval.exact import ExactNeighbours
from mufin.retrieval.hnsw import HnswNeighbours

BUDGET = 2**22  # votes held at once; they and their sorted copies take 200 MB


@dataclass(frozen=True, slots=True)
class NeighbourVotes:
    """The share of votes for each label, in [0, 1]: a k-nearest-neighbour classifier.

    v_l(x) = sum of p_i over the train datapoints i that have label l, with p the softmax over the
    `count` datapoints nearest to x of <x, x_i> / temperature (Wu et al., "Unsupervised feature
    learning via non-parametric instance discrimination", CVPR 2018, Sec. 3.4, weighs neighbours
    so). Not in MUFIN: it is one more term of the final score, and its weight may be 0.

    The centroid of a label is the mean of all its datapoints. Where these are of several kinds, a
    product is near to some of them and to no mean. Its nearest datapoints still say which labels
    go together.
    """

    search: ExactNeighbours | HnswNeighbours  # one row per datapoint with a descriptor
    products: np.ndarray  # (N,) int64, of the train datapoints
    labels: Lists  # of the train datapoints
    count: int
    temperature: float

    def scores(
        self, queries: np.ndarray, ids: np.ndarray, products: np.ndarray | None = None
    ) -> np.ndarray:
        """(n, K) float32: the votes for labels `ids` (n, K), where -1 is none and gets 0.

        `queries` (n, D') are the vectors of the datapoints for the search. With their `products`
        (n,) a datapoint of train does not vote for its own labels.
        """
        out = np.zeros(ids.shape, np.float32)
        if not len(ids) or not len(self.labels.values):
            return out
        step = max(1, BUDGET // max(self.count * int(self.labels.lengths().max()), 1))
        num_labels = int(max(ids.max(), self.labels.values.max())) + 1
        for start in range(0, len(ids), step):
            rows = slice(start, start + step)
            own = None if products is None else self._own(products[rows])
            near, similarity = self.search.search(queries[rows], self.count, own)
            share = shares(similarity, self.temperature)
            keys, votes = self._summed(near, share, num_labels)
            wanted = np.arange(len(near))[:, None] * num_labels + ids[rows]
            place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
            if len(keys):
                there = (keys[place] == wanted) & (ids[rows] >= 0)
                out[rows] = np.where(there, votes[place], 0)
        return out

    def _own(self, products: np.ndarray) -> Lists:
        """The train datapoints that each of `products` is."""
        order = np.argsort(self.products, kind="stable")
        mine = self.products[order]
        first, last = (np.searchsorted(mine, products, side) for side in ("left", "right"))
        lengths = last - first
        offsets = offsets_of(lengths)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Lists(offsets, order[np.repeat(first, lengths) + within])

    def _summed(
        self, near: np.ndarray, share: np.ndarray, num_labels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(V,) ascending row * num_labels + label, and (V,) float64 the votes for each."""
        voter = near.reshape(-1)
        row = np.repeat(np.arange(len(near)), near.shape[1])
        kept = voter >= 0
        theirs = self.labels.take(voter[kept])
        voices = theirs.rows()
        keys = row[kept][voices] * num_labels + theirs.values
        order = np.argsort(keys, kind="stable")
        distinct, first = np.unique(keys[order], return_index=True)
        votes = share.reshape(-1)[kept][voices][order]
        return distinct, np.add.reduceat(votes, first) if len(first) else votes

    def tensors(self) -> dict[str, np.ndarray]:
        """What `models/index` keeps of it, but for the graph of the search."""
        return {
            "vectors": self.search.source.rows,
            "datapoint": self.search.source.label,
            "products": self.products,
            "offsets": self.labels.offsets,
            "labels": self.labels.values,
        }

    def facts(self) -> dict[str, float]:
        """Its settings."""
        return {"count": self.count, "temperature": self.temperature}


def shares(similarity: np.ndarray, temperature: float) -> np.ndarray:
    """(n, k) float64: the softmax of `similarity` / temperature over a row; -inf gets 0."""
    scaled = similarity.astype(np.float64) / temperature
    best = scaled.max(1, keepdims=True, initial=-np.inf)
    weight = np.exp(scaled - np.where(np.isfinite(best), best, 0))
    return weight / np.maximum(weight.sum(1, keepdims=True), np.finfo(np.float64).tiny)
