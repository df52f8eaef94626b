"""Train, valid and test splits that do not leak (MUFIN Sec. 4, Datasets; App. B).

A datapoint is a product asked about, a label is a product that can be the answer. Both come from
the same catalog and share their encoders, so a random split of the datapoints leaks: a test product
p can be a label of a train datapoint q. Training then moves p towards q, and q is often a true
answer for p. On a catalog whose relations are all mutual,
ranking by the reverse relation alone, without any content, finds nearly every answer, and without
the reciprocal pairs so do paths over two relations.

- `cold_split`, the default, removes the valid and test products from the labels.
- `time_split` trains on the relations of the past and tests on those of later times.
- `warm_split` keeps them, as the sets of the Extreme Classification Repository do, and excludes the
  reciprocal pairs from the evaluation.
- `released_split` keeps a split that came with the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mufin.artifacts.curated import Split
from mufin.errors import MufinError
from mufin.ragged import MOST, Lists

NAMES = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Splits:
    """The labels, the splits, and valid and test once more with the unseen labels as candidates."""

    labels: np.ndarray  # (L,) int64, the product of each label
    rows: dict[str, Split]  # of train, valid and test; label ids in [0, L)
    unseen: np.ndarray  # (U,) int64, candidates that are not used in training; empty if warm
    unseen_rows: dict[str, Split]  # of valid and test, same datapoints; ids in [0, L + U)
    dropped: dict[str, int]  # counts of what was dropped, by reason


def divide(
    relations: Lists, test: float, valid: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """{train, valid, test}: the products with relations, divided at random, each part ascending.

    `test` is a fraction of all of them, `valid` a fraction of those that are not in test.
    """
    order = rng.permutation(np.flatnonzero(relations.lengths() > 0))
    num_test = round(test * len(order))
    num_valid = round(valid * (len(order) - num_test))
    parts = {
        "test": order[:num_test],
        "valid": order[num_test : num_test + num_valid],
        "train": order[num_test + num_valid :],
    }
    return {name: np.sort(parts[name]) for name in NAMES}


def cold_split(
    relations: Lists,
    test: float,
    valid: float,
    rng: np.random.Generator,
    first_label: int | None = None,
) -> Splits:
    """A split in which no valid or test product takes part in training, not even as a label.

    The labels are the products that a train datapoint is related to, without the held-out products
    of valid and test. The held-out products are the unseen labels, with ids from L on: candidates
    in `unseen_rows` only. Raises MufinError if no label is left.

    Where labels are no products, they are the products from `first_label` on. Only datapoints are
    held out then, and the unseen labels are those that no train datapoint is related to.
    """
    parts = divide(relations, test, valid, rng)
    held = np.zeros(len(relations), bool)
    held[parts["valid"]] = held[parts["test"]] = True
    targets = np.zeros(len(relations), bool)
    targets[relations.take(parts["train"]).values] = True
    labels = np.flatnonzero(targets & ~held)
    if not len(labels):
        if mutual(relations):
            raise mutual_pairs("train")
        raise MufinError(
            "the cold split leaves no relation between two products of train; "
            "lower curate.test and curate.valid, or provide more products with relations"
        )
    # All held-out products, also those that lose their own row below: they are still candidates.
    unseen = np.flatnonzero(held)
    if first_label is not None:
        unseen = np.setdiff1d(np.arange(first_label, len(relations)), labels)
    # Taken one after the other: each is a copy of the relations of its products.
    related = ((name, products, relations.take(products)) for name, products in parts.items())
    return _with_unseen(labels, unseen, related, len(relations))


def time_split(periods: dict[str, Lists]) -> Splits:
    """A split by time: train has the relations of the past, valid and test those of later times.

    `periods` has the relations (P,) of train, valid and test, each computed from the interactions
    of that period alone. The labels are the products that a product is related to in train. The
    datapoints of a period are the products that have relations in it, so a test product may be a
    train datapoint or a label ("known") or take no part in training ("cold"), and the truth of a
    known one may repeat its relations of train. The evaluation tells these apart. The unseen labels
    are products that a later period relates to and that take no part in training.

    What leaks: no interaction of valid or test reaches training, and valid reaches only what is
    chosen on it. But a basket that goes on after a cut is cut with it, so its two parts can tell of
    each other: a session of a few minutes, of which the last click is in test. Titles, pictures and
    categories have no time; a catalog of today describes also what was sold a year ago, and which
    products it lists at all is known today only. The cuts themselves come from all times.

    Raises MufinError if train has no relation.
    """
    train = periods["train"]
    labels = np.unique(train.values)
    if not len(labels):
        raise MufinError(
            "the interactions of the train period give no relation; lower curate.test, "
            "curate.valid or curate.interactions.min_support, or provide more interactions"
        )
    known = train.lengths() > 0
    known[labels] = True
    later = np.unique(np.concatenate([periods[name].values for name in ("valid", "test")]))
    parts = []
    for name, relations in periods.items():
        products = np.flatnonzero(relations.lengths() > 0)
        parts.append((name, products, relations.take(products)))
    return _with_unseen(labels, later[~known[later]], parts, len(train))


def _with_unseen(
    labels: np.ndarray,
    unseen: np.ndarray,
    parts: Iterable[tuple[str, np.ndarray, Lists]],
    size: int,
) -> Splits:
    """The splits of `parts` (name, products, what they are related to), of `size` products.

    A datapoint without truth can neither train nor be evaluated, so it is dropped and counted.
    """
    label_of = _positions(labels, size)
    wider = _positions(np.concatenate([labels, unseen]), size)
    rows, unseen_rows, dropped = {}, {}, {}
    for name, products, related in parts:
        truth = mapped(related, label_of)
        keep = truth.lengths() > 0
        dropped[f"{name} products without a label"] = int((~keep).sum())
        products, truth = products[keep], truth.take(np.flatnonzero(keep))
        rows[name] = Split(products, truth, _own(products, label_of))
        if name != "train":
            more_truth = mapped(related.take(np.flatnonzero(keep)), wider)
            unseen_rows[name] = Split(products, more_truth, _own(products, wider))
    return Splits(labels, rows, unseen, unseen_rows, dropped)


def mutual(relations: Lists) -> bool:
    """Whether there are relations, and every one has its reverse."""
    size, rows = len(relations), relations.rows()
    values = relations.values.astype(np.int64)
    back = np.isin(values * size + rows, rows * size + values)
    return len(back) > 0 and bool(back.all())


def mutual_pairs(name: str) -> MufinError:
    """The error of a cold split that leaves no datapoint in the split `name`."""
    return MufinError(
        f"the cold split leaves no {name} datapoint with a label: all relations are mutual pairs, "
        "of which it always holds out one product; set curate.split to warm where products have "
        "several relations, or to time where there are interactions"
    )


def warm_split(relations: Lists, test: float, valid: float, rng: np.random.Generator) -> Splits:
    """A split in which a valid or test product can also be a label in training.

    The filter pairs of a datapoint, which evaluation ignores, are its own label and, in valid and
    test, the train datapoints that have it as a label. As in the sets of the Extreme Classification
    Repository, the truth still contains them. A datapoint whose truth holds nothing else could only
    score 0, so it is dropped and counted.
    """
    parts = divide(relations, test, valid, rng)
    targets = np.zeros(len(relations), bool)
    targets[relations.take(parts["train"]).values] = True
    labels = np.flatnonzero(targets)
    label_of = _positions(labels, len(relations))
    back = relations.transpose(len(relations))  # row p: the products that are related to p
    in_train = np.zeros(len(relations), bool)
    in_train[parts["train"]] = True
    rows, dropped = {}, {}
    for name, products in parts.items():
        truth, excluded = mapped(relations.take(products), label_of), _own(products, label_of)
        if name != "train":
            reverse = back.take(products)
            from_train = reverse.only(in_train[reverse.values])
            excluded = _union(excluded, mapped(from_train, label_of))
        some = truth.lengths() > 0
        judged = truth.minus(excluded).lengths() > 0
        dropped[f"{name} products without a label"] = int((~some).sum())
        dropped[f"{name} products whose every label is a filter pair"] = int((some & ~judged).sum())
        rows[name] = Split(products, truth, excluded).take(np.flatnonzero(judged))
    return _without_unseen(labels, rows, dropped)


def released_split(
    labels: np.ndarray, train: Split, test: Split, valid: float, rng: np.random.Generator
) -> Splits:
    """The split that came with the data, with valid, a fraction of train, taken out of train.

    `labels` is (L,), the product of each label. Labels keep their ids and test keeps all its rows,
    even those without truth, so that figures compare with published ones. A train datapoint moves
    to valid only if each of its labels has another train datapoint. Labels that had no train
    datapoint from the start stay and are counted.
    """
    left = np.bincount(train.labels.values, minlength=len(labels))  # train datapoints per label
    dropped = {"labels without a train datapoint, kept": int((left == 0).sum())}
    chosen, goal = np.zeros(len(train.product), bool), round(valid * len(train.product))
    for row in rng.permutation(len(train.product)):
        if goal <= 0:
            break
        mine = np.unique(train.labels[row])
        if len(mine) and (left[mine] > 1).all():
            left[mine] -= 1
            chosen[row] = True
            goal -= 1
    rows = {
        "train": train.take(np.flatnonzero(~chosen)),
        "valid": train.take(np.flatnonzero(chosen)),
        "test": test,
    }
    return _without_unseen(labels, rows, dropped)


def released_with_unseen(labels: np.ndarray, unseen: np.ndarray, rows: dict[str, Split]) -> Splits:
    """The split that came with the data and says which candidates are not used in training.

    `labels` (L,) and `unseen` (U,) are products; `rows` of train, valid and test have label ids in
    [0, L + U). All datapoints stay, also those whose every label is unseen: only `unseen_rows` has
    these labels.
    """
    seen = np.concatenate([np.arange(len(labels)), np.full(len(unseen), -1)])
    own = {
        name: replace(r, labels=mapped(r.labels, seen), excluded=mapped(r.excluded, seen))
        for name, r in rows.items()
    }
    without = {
        f"{name} datapoints of unseen labels alone": int((own[name].labels.lengths() == 0).sum())
        for name in ("valid", "test")
    }
    return Splits(labels, own, unseen, {n: rows[n] for n in ("valid", "test")}, without)


def restricted(
    labels: np.ndarray, train: Split, test: Split, position: np.ndarray
) -> tuple[np.ndarray, Split, Split]:
    """(labels, train, test) of a released split, reduced to a subsample of its products.

    `position` (P,) is the new row number of each product, -1 for one that is not in the subsample.
    Labels without a train datapoint and datapoints without truth are dropped; the rest keep their
    order.
    """
    train = train.take(np.flatnonzero(position[train.product] >= 0))
    test = test.take(np.flatnonzero(position[test.product] >= 0))
    kept = position[labels] >= 0
    kept[np.bincount(train.labels.values, minlength=len(labels)) == 0] = False
    label_of = _positions(np.flatnonzero(kept), len(labels))
    train, test = (_relabelled(rows, position, label_of) for rows in (train, test))
    return position[labels[kept]], train, test


def _relabelled(rows: Split, position: np.ndarray, label_of: np.ndarray) -> Split:
    """`rows` with new product numbers and label ids, without the datapoints that lose all truth."""
    truth, excluded = mapped(rows.labels, label_of), mapped(rows.excluded, label_of)
    moved = Split(position[rows.product], truth, excluded)
    return moved.take(np.flatnonzero(truth.lengths() > 0))


def _without_unseen(labels: np.ndarray, rows: dict[str, Split], dropped: dict[str, int]) -> Splits:
    same = {name: rows[name] for name in ("valid", "test")}
    return Splits(labels, rows, np.zeros(0, np.int64), same, dropped)


def _positions(ids: np.ndarray, size: int) -> np.ndarray:
    """(size,) int32, int64 where needed: the position of each number in `ids`, -1 for none."""
    out = np.full(size, -1, np.int32 if size <= MOST else np.int64)
    out[ids] = np.arange(len(ids))
    return out


def mapped(lists: Lists, position: np.ndarray) -> Lists:
    """Each value replaced by `position[value]`; values whose position is -1 are removed."""
    moved = lists.only((position >= 0)[lists.values])
    return Lists(moved.offsets, position[moved.values])


def _own(products: np.ndarray, position: np.ndarray) -> Lists:
    """Per datapoint the label that is the same product, if there is one: it is no valid answer."""
    return mapped(Lists(np.arange(len(products) + 1), products), position)


def _union(a: Lists, b: Lists) -> Lists:
    """Row by row the values of `a` or `b`, ascending and distinct."""
    base = int(max(a.values.max(initial=0), b.values.max(initial=0))) + 1
    # (row, value) as one integer, so that one `union1d` does all rows.
    keys = np.union1d(a.rows() * base + a.values, b.rows() * base + b.values)
    return Lists.of_pairs(keys // base, keys % base, len(a))
