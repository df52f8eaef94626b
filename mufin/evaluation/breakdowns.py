"""Figures of groups of test datapoints, and by popularity of labels, with standard errors.

Every figure is a mean over datapoints, so each comes from values per datapoint: they also give its
standard error and tell whether the lead of one method over another exceeds the standard error of
that lead.
"""

from __future__ import annotations

import numpy as np

from mufin import metrics
from mufin.artifacts.curated import Curated
from mufin.hits import filtered
from mufin.ragged import Lists, is_in

FIGURES = ("P@1", "P@5", "R@10")  # the columns of `per_datapoint`
PICTURES = ("0", "1", "2", "3", "4-5", "6 and more")
KNOWN = ("known products", "cold products")
PAIRS = ("new pairs", "repeated pairs")
MODALITIES = ("title and picture", "no title", "no picture", "neither")


def per_datapoint(predictions: np.ndarray, truth: Lists, excluded: Lists) -> np.ndarray:
    """(n, 3) float64: P@1, P@5, R@10 of each datapoint, in percent; one without truth counts 0."""
    predictions, truth = filtered(predictions, truth, excluded)
    found = is_in(predictions[:, :10], truth)
    sizes = np.maximum(truth.lengths(), 1)
    parts = (found[:, 0], found[:, :5].sum(1) / 5, found.sum(1) / sizes)
    return 100 * np.stack(parts, 1).astype(np.float64)


def bins_per_datapoint(
    predictions: np.ndarray, truth: Lists, excluded: Lists, frequency: np.ndarray, bins: int = 5
) -> np.ndarray:
    """(n, bins) float64: what each bin of label popularity adds to a datapoint's R@10, in percent.

    The rarest labels are in the first bin. `frequency` (L,): train datapoints of each label. The
    means over datapoints are MUFIN Fig. 4.
    """
    label_bin = metrics.popularity_bins(frequency, truth, bins)
    predictions, truth = filtered(predictions, truth, excluded)
    top = predictions[:, :10]
    part = is_in(top, truth) / np.maximum(truth.lengths(), 1)[:, None]
    cell = np.arange(len(top))[:, None] * bins + label_bin[np.maximum(top, 0)]
    return 100 * np.bincount(cell.ravel(), part.ravel(), len(top) * bins).reshape(-1, bins)


def of_groups(values: np.ndarray, group: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """(groups, m) means of `values` (n, m) over each group's datapoints, and standard errors.

    `group` (n,): the group of each datapoint. NaN where a group has no datapoint.
    """
    means, errors = (np.full((groups, values.shape[1]), np.nan) for _ in range(2))
    for number in range(groups):
        own = values[group == number]
        if len(own):
            means[number], errors[number] = own.mean(0), standard_error(own)
    return means, errors


def standard_error(values: np.ndarray) -> np.ndarray:
    """The standard error of the mean over the first axis; NaN for a single value."""
    n = len(values)
    return values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)


def leader(values: np.ndarray) -> int | None:
    """The row that leads the second by more than the standard error of their difference, or None.

    `values` (rows, n): a figure of each datapoint by each row. The difference is taken datapoint by
    datapoint, so that what makes a datapoint hard for all rows cancels out.
    """
    if len(values) < 2 or values.shape[1] < 2:
        return None
    first, second = np.argsort(-values.mean(1), kind="stable")[:2]
    lead = values[first] - values[second]
    return int(first) if lead.mean() > standard_error(lead) else None


def by_pictures(counts: np.ndarray) -> np.ndarray:
    """(n,) int64 index into PICTURES of each datapoint's number of pictures."""
    return np.searchsorted([1, 2, 3, 4, 6], counts, "right")


def by_modality(has_title: np.ndarray, has_picture: np.ndarray) -> np.ndarray:
    """(n,) int64 index into MODALITIES of what each datapoint has, both bool (n,)."""
    return np.where(has_title, np.where(has_picture, 0, 2), np.where(has_picture, 1, 3))


def by_known(products: np.ndarray, data: Curated) -> np.ndarray:
    """(n,) int64 index into KNOWN of each product: whether it takes part in training, in any role.

    All products of a cold split are cold. In a split by time both kinds occur.
    """
    return (~np.isin(products, np.union1d(data.train.product, data.labels))).astype(np.int64)


def repeated_pairs(products: np.ndarray, data: Curated) -> Lists:
    """(n,) rows: the labels that each product has as a train datapoint, if it is one.

    In a split by time products are train datapoints as well, and a part of their truth repeats what
    train already had.
    """
    train = data.train
    place = np.full(max(products.max(initial=0), train.product.max(initial=0)) + 1, len(train))
    place[train.product] = np.arange(len(train))
    offsets = np.append(train.labels.offsets, train.labels.offsets[-1])  # an empty row at the end
    return Lists(offsets, train.labels.values).take(place[products])


def of_known_and_new(
    predictions: np.ndarray, data: Curated, split: str
) -> list[tuple[str, int, list[float]]]:
    """(group, datapoints, `per_datapoint` means) of KNOWN and PAIRS, without empty groups.

    For new pairs the repeated ones are filter pairs, and the reverse. Datapoints without truth of
    the kind are left out.
    """
    asked = data.splits[split]
    groups, repeated = by_known(asked.product, data), repeated_pairs(asked.product, data)
    values = per_datapoint(predictions, asked.labels, asked.excluded)
    out = [(name, values[groups == number]) for number, name in enumerate(KNOWN)]
    new = asked.labels.minus(repeated)
    old = asked.labels.minus(new)
    if len(old.values):  # else all pairs are new, which says nothing
        for name, truth, other in zip(PAIRS, (new, old), (old, new)):
            excluded = Lists.of_pairs(*_joined(asked.excluded, other), len(asked))
            some = truth.lengths() > 0
            out.append((name, per_datapoint(predictions, truth, excluded)[some]))
    return [(name, len(v), [float(x) for x in v.mean(0)]) for name, v in out if len(v)]


def _joined(a: Lists, b: Lists) -> tuple[np.ndarray, np.ndarray]:
    """(row, value) of all values of two lists of as many rows, by row."""
    rows, values = np.append(a.rows(), b.rows()), np.append(a.values, b.values)
    order = np.argsort(rows, kind="stable")
    return rows[order], values[order]


def by_category(category: np.ndarray, most: int) -> tuple[list[str], np.ndarray]:
    """Names of the `most` largest categories, then 'others'; and each datapoint's index into them.

    `category` (n,) str, '' for none, which counts among the others.
    """
    names, counts = np.unique(category.astype(str), return_counts=True)
    named = [str(names[i]) for i in np.argsort(-counts, kind="stable") if names[i]]
    place = {name: i for i, name in enumerate(named[:most])}
    index = np.array([place.get(str(c), len(place)) for c in category], np.int64)
    return [*place] + (["others"] if (index == len(place)).any() else []), index


def bin_frequencies(
    frequency: np.ndarray, truth: Lists, bins: int = 5
) -> list[tuple[int, int, int]]:
    """(labels, least, most train datapoints of one) of each bin."""
    label_bin = metrics.popularity_bins(frequency, truth, bins)
    counts = [frequency[label_bin == number] for number in range(bins)]
    return [
        (len(c), int(c.min(initial=10**9)) if len(c) else 0, int(c.max(initial=0))) for c in counts
    ]
