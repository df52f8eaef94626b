"""Train, valid and test without the leak (METHOD, Splits, and the leak in them)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.artifacts.curated import Split
from mufin.errors import MufinError
from mufin.ragged import Lists

NAMES = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Splits:
    """Labels (product of each), the splits, and in a cold split the same questions over unseen labels too."""

    labels: np.ndarray
    rows: dict[str, Split]
    unseen: np.ndarray
    unseen_rows: dict[str, Split]
    dropped: dict[str, int]


def divide(
    relations: Lists, test: float, valid: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Products with relations, divided at random: `test` of them, `valid` of the rest, and train."""
    order = rng.permutation(np.flatnonzero(np.diff(relations.offsets) > 0))
    tests = round(test * len(order))
    valids = round(valid * (len(order) - tests))
    parts = {
        "test": order[:tests],
        "valid": order[tests : tests + valids],
        "train": order[tests + valids :],
    }
    return {name: np.sort(parts[name]) for name in NAMES}


def cold_split(relations: Lists, test: float, valid: float, rng: np.random.Generator) -> Splits:
    """Products of valid and test leave the label set: no model has seen them in training in any role.

    They are the unseen labels, ids from L on, asked beside; also where they left for want of truth. Raises MufinError
    where no label is left.
    """
    parts = divide(relations, test, valid, rng)
    held = np.zeros(len(relations), bool)
    held[parts["valid"]] = held[parts["test"]] = True
    train_targets = relations.take(parts["train"]).values
    labels = np.unique(train_targets[~held[train_targets]])
    if not len(labels):
        raise MufinError(
            "no relation is left between products of train after the cold split; lower curate.test and "
            "curate.valid, or give more products"
        )
    unseen = np.flatnonzero(held)
    label_of = _positions(labels, len(relations))
    wider = _positions(np.concatenate([labels, unseen]), len(relations))
    rows, unseen_rows, dropped = {}, {}, {}
    for name, products in parts.items():
        truth = mapped(relations.take(products), label_of)
        keep = np.diff(truth.offsets) > 0  # without truth there is nothing to learn or to judge
        dropped[f"{name} products without a label"] = int((~keep).sum())
        products = products[keep]
        rows[name] = Split(products, truth.take(np.flatnonzero(keep)), _own(products, label_of))
        if name != "train":
            unseen_rows[name] = Split(
                products, mapped(relations.take(products), wider), _own(products, wider)
            )
    return Splits(labels, rows, unseen, unseen_rows, dropped)


def warm_split(relations: Lists, test: float, valid: float, rng: np.random.Generator) -> Splits:
    """Products keep both roles; the filter pairs hold the same product and the reciprocal pairs of train.

    The truth keeps its filter pairs, as in the released sets (evaluation takes them out of both sides), but a datapoint
    that has no other truth could only score 0, whoever answers: it leaves, counted.
    """
    parts = divide(relations, test, valid, rng)
    labels = np.unique(relations.take(parts["train"]).values)
    label_of = _positions(labels, len(relations))
    rows, dropped = {}, {}
    train = parts["train"]
    back = relations.transpose(len(relations))  # who has p as a relation
    in_train = np.zeros(len(relations), bool)
    in_train[train] = True
    for name, products in parts.items():
        truth, excluded = mapped(relations.take(products), label_of), _own(products, label_of)
        if name != "train":
            reverse = back.take(products)
            known = reverse.only(in_train[reverse.values])
            excluded = _union(excluded, mapped(known, label_of))
        some, judged = np.diff(truth.offsets) > 0, np.diff(truth.minus(excluded).offsets) > 0
        dropped[f"{name} products without a label"] = int((~some).sum())
        dropped[f"{name} products whose every label is a filter pair"] = int((some & ~judged).sum())
        rows[name] = Split(products, truth, excluded).take(np.flatnonzero(judged))
    return Splits(
        labels, rows, np.zeros(0, np.int64), {n: rows[n] for n in ("valid", "test")}, dropped
    )


def released_split(
    labels: np.ndarray, train: Split, test: Split, valid: float, rng: np.random.Generator
) -> Splits:
    """A split as its makers made it; valid is carved from train without taking any label's last train datapoint.

    Labels keep their ids and test its rows, without truth too; labels that had no train datapoint stay, counted.
    """
    left = np.bincount(train.labels.values, minlength=len(labels))
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
    return Splits(
        labels, rows, np.zeros(0, np.int64), {n: rows[n] for n in ("valid", "test")}, dropped
    )


def restricted(
    labels: np.ndarray, train: Split, test: Split, position: np.ndarray
) -> tuple[np.ndarray, Split, Split]:
    """A released split over the products that have a new `position` (-1: none): labels left without a train datapoint
    leave, in their order, and datapoints left without truth."""
    train, test = (rows.take(np.flatnonzero(position[rows.product] >= 0)) for rows in (train, test))
    kept = position[labels] >= 0
    kept[np.bincount(train.labels.values, minlength=len(labels)) == 0] = False
    label_of = _positions(np.flatnonzero(kept), len(labels))
    parts = []
    for rows in (train, test):
        truth, excluded = mapped(rows.labels, label_of), mapped(rows.excluded, label_of)
        parts.append(
            Split(position[rows.product], truth, excluded).take(np.flatnonzero(truth.lengths() > 0))
        )
    return position[labels[kept]], *parts


def _positions(ids: np.ndarray, size: int) -> np.ndarray:
    out = np.full(size, -1, np.int64)
    out[ids] = np.arange(len(ids))
    return out


def mapped(lists: Lists, position: np.ndarray) -> Lists:
    """The values at their new positions; those without one leave."""
    moved = lists.only(position[lists.values] >= 0)
    return Lists(moved.offsets, position[moved.values])


def _own(products: np.ndarray, position: np.ndarray) -> Lists:
    """Each product's own label, where it is one: a datapoint is no answer to itself."""
    return mapped(Lists(np.arange(len(products) + 1), products), position)


def _union(a: Lists, b: Lists) -> Lists:
    """Row by row, ascending."""
    base = int(max(a.values.max(initial=0), b.values.max(initial=0))) + 1
    keys = np.union1d(a.rows() * base + a.values, b.rows() * base + b.values)
    return Lists.of_pairs(keys // base, keys % base, len(a))
