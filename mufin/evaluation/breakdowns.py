"""Figures of groups of test datapoints, and by popularity of labels, with standard errors.

Every figure is a mean over datapoints, so each comes from values per datapoint: they also give its
standard error and tell whether the lead of one method over another exceeds the standard error of
that lead.
"""

from __future__ import annotations

import numpy as np

from mufin import metrics
from mufin.ragged import Lists, is_in

FIGURES = ("P@1", "P@5", "R@10")  # the columns of `per_datapoint`
PICTURES = ("0", "1", "2", "3", "4-5", "6 and more")
MODALITIES = ("title and picture", "no title", "no picture", "neither")


def per_datapoint(predictions: np.ndarray, truth: Lists, excluded: Lists) -> np.ndarray:
    """(n, 3) float64: P@1, P@5, R@10 of each datapoint, in percent; one without truth counts 0."""
    predictions, truth = metrics.filtered(predictions, truth, excluded)
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
    predictions, truth = metrics.filtered(predictions, truth, excluded)
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
