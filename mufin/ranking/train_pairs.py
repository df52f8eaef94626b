"""What training already says about a product: its own labels there, and how strong they are."""

from __future__ import annotations

import numpy as np

from mufin.artifacts.curated import Split


class TrainPairs:
    """The strength in (0, 1] of each pair of a product and a label in train; other pairs have 0.

    A network that sees only titles and pictures cannot keep every pair that it was trained on. A
    product that has been sold for a year should still get what was bought with it. As a term of
    the final score (`evaluate.pair_weights`, not in the paper) the strength brings it back; for
    products that train does not have nothing changes. The strongest pair of a product has 1.
    """

    def __init__(self, train: Split, num_labels: int):
        order = np.argsort(train.product, kind="stable")
        self.products = train.product[order]
        labels = train.labels.take(order)
        self.num_labels = num_labels
        weights = np.ones(len(train.labels.values)) if train.weights is None else train.weights
        weights = weights[train.labels.positions(order)[0]]
        strongest = np.zeros(len(order))
        np.maximum.at(strongest, labels.rows(), weights)
        self.strength = (weights / strongest[labels.rows()]).astype(np.float32)
        # A pair as one integer, ascending, so that a binary search finds it
        keys = labels.rows() * num_labels + labels.values
        by_key = np.argsort(keys)
        self.keys, self.strength = keys[by_key], self.strength[by_key]

    def of(self, products: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(n, K) float32: the strength of labels `ids` (n, K) for each of `products` (n,).

        Both are as in train; an id of -1 is none.
        """
        out = np.zeros(ids.shape, np.float32)
        if not len(self.keys):
            return out
        row = np.minimum(np.searchsorted(self.products, products), len(self.products) - 1)
        known = self.products[row] == products
        for number in np.flatnonzero(known):  # a row at a time: the keys of all would be N x L
            wanted = row[number] * self.num_labels + ids[number]
            place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
            found = (self.keys[place] == wanted) & (ids[number] >= 0)
            out[number] = np.where(found, self.strength[place], 0)
        return out

    def known(self, products: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each product is a train datapoint."""
        return np.isin(products, self.products)
