"""Folds of the train datapoints that do not leak, as test does not (`mufin.corpus.splits`).

Scores by which a mix is chosen must come from networks that have not seen the datapoint. In each
fold some train datapoints are left out, and what remains is a smaller `data/curated`, with the
left-out datapoints as its test split. The rule is that of the split itself:

- `cold`: the products that are left out leave the fold's labels too, as those of test do. A label
  of the fold has a train datapoint in it.
- `time`: the same, since most relations hold in both directions and the reverse one would tell the
  answer. So the left-out datapoints are as the cold products of a later period; of known products a
  fold tells nothing.
- `warm`: a left-out product stays a label if a train datapoint of the fold has it. These train
  datapoints are its filter pairs, so that the reverse relation does not tell the answer.
- `released`: all labels stay, with or without train datapoints, and so do the filter pairs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mufin.artifacts.curated import Curated, Split
from mufin.corpus.splits import mapped
from mufin.ragged import Lists


def draw_folds(products: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) int64: the fold of each datapoint, from 0.

    `products` (n,) are the products of the datapoints; a product is in one fold alone. Folds have
    equal numbers of products, up to one. With fewer products than folds there is one per product.
    """
    distinct, position = np.unique(products, return_inverse=True)
    order = np.random.default_rng([seed, 2]).permutation(len(distinct))
    fold = np.empty(len(distinct), np.int64)
    fold[order] = np.arange(len(distinct)) % max(folds, 1)
    return fold[position]


def fold_of(
    data: Curated, left_out: np.ndarray, kind: str
) -> tuple[Curated, np.ndarray, np.ndarray]:
    """(the data of a fold, its labels (L',), its left-out datapoints (n',)).

    `left_out` (n,) bool names rows of train, `kind` is that of the split. The labels are numbers
    of labels of `data`, the left-out datapoints rows of its train split, row by row with the test
    split of the fold; both ascend. Datapoints without a true label in the fold are not in it: they
    could not train, and could only score 0. Valid is empty.
    """
    train = data.train
    rest, held = np.flatnonzero(~left_out), np.flatnonzero(left_out)
    labels = _labels(data, rest, train.product[held], kind)
    label_of = np.full(len(data.labels), -1, np.int64)
    label_of[labels] = np.arange(len(labels))
    kept = _mapped(train.take(rest), label_of)
    kept = kept.take(np.flatnonzero(kept.labels.lengths() > 0))
    asked = replace(train.take(held), weights=None)
    if kind == "warm":
        asked = replace(asked, excluded=_with_reverse(data, train.take(rest), asked))
    asked = _mapped(asked, label_of)
    judged = np.flatnonzero(asked.labels.minus(asked.excluded).lengths() > 0)
    nobody = np.zeros(0, np.int64)
    splits = {"train": kept, "valid": asked.take(nobody), "test": asked.take(judged)}
    return Curated(data.labels[labels], splits), labels, held[judged]


def _labels(data: Curated, rest: np.ndarray, held: np.ndarray, kind: str) -> np.ndarray:
    """The labels of a fold whose train datapoints are `rest`; `held` are the products left out."""
    if kind == "released":
        return np.arange(len(data.labels))
    counts = np.bincount(data.train.labels.take(rest).values, minlength=len(data.labels))
    there = counts > 0
    if kind in ("cold", "time"):
        there &= ~np.isin(data.labels, held)
    return np.flatnonzero(there)


def _mapped(split: Split, label_of: np.ndarray) -> Split:
    """The datapoints with the label ids of the fold; labels that are not in it go."""
    weights = split.weights
    if weights is not None:
        weights = weights[label_of[split.labels.values] >= 0]
    labels, excluded = mapped(split.labels, label_of), mapped(split.excluded, label_of)
    return Split(split.product, labels, excluded, weights)


def _with_reverse(data: Curated, rest: Split, asked: Split) -> Lists:
    """The filter pairs of `asked`, and the train datapoints in `rest` that have it as a label."""
    size = int(max(data.labels.max(initial=-1), data.train.product.max(initial=-1))) + 1
    own = np.full(size, -1, np.int64)  # product -> its label
    own[data.labels] = np.arange(len(data.labels))
    row_of = np.full(size, -1, np.int64)  # product -> its row of `asked`
    row_of[asked.product] = np.arange(len(asked))
    source, target = rest.labels.rows(), rest.labels.values
    row, label = row_of[data.labels[target]], own[rest.product[source]]
    there = (row >= 0) & (label >= 0)
    old = asked.excluded
    pairs = np.stack(
        [
            np.concatenate([old.rows(), row[there]]),
            np.concatenate([old.values, label[there]]),
        ]
    ).astype(np.int64)
    pairs = np.unique(pairs, axis=1)
    return Lists.of_pairs(pairs[0], pairs[1], len(asked))
