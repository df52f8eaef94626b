"""Figures of groups of test datapoints: by category, number of pictures, modality there; by popularity of labels."""

from __future__ import annotations

import numpy as np

from mufin import metrics as xc_metrics
from mufin.ragged import Lists

PICTURES = ("0", "1", "2", "3", "4-5", "6 and more")
MODALITIES = ("title and picture", "no title", "no picture", "neither")


def by_pictures(counts: np.ndarray) -> np.ndarray:
    """(n,) int64 index into PICTURES of each datapoint's number of pictures."""
    return np.searchsorted([1, 2, 3, 4, 6], counts, "right")


def by_modality(has_title: np.ndarray, has_picture: np.ndarray) -> np.ndarray:
    """(n,) int64 index into MODALITIES of what each datapoint has, both bool (n,)."""
    return np.where(has_title, np.where(has_picture, 0, 2), np.where(has_picture, 1, 3))


def by_category(category: np.ndarray, most: int) -> tuple[list[str], np.ndarray]:
    """The `most` largest categories, largest first, then 'others'; and the index into them of each datapoint.

    `category` (n,) str, '' for none, which counts among the others.
    """
    names, counts = np.unique(category.astype(str), return_counts=True)
    named = [str(names[i]) for i in np.argsort(-counts, kind="stable") if names[i]]
    place = {name: i for i, name in enumerate(named[:most])}
    index = np.array([place.get(str(c), len(place)) for c in category], np.int64)
    return [*place] + (["others"] if (index == len(place)).any() else []), index


def of_groups(
    predictions: np.ndarray, truth: Lists, excluded: Lists, group: np.ndarray, groups: int
) -> np.ndarray:
    """(groups, 3) P@1, P@5 and R@10 of the datapoints of each group (n,), in percent; NaN for a group without any."""
    out = np.full((groups, 3), np.nan)
    for number in range(groups):
        rows = np.flatnonzero(group == number)
        if len(rows):
            mine = predictions[rows], truth.take(rows)
            out[number] = [
                xc_metrics.precision_at_k(*mine, 1, excluded.take(rows)),
                xc_metrics.precision_at_k(*mine, 5, excluded.take(rows)),
                xc_metrics.recall_at_k(*mine, 10, excluded.take(rows)),
            ]
    return out


def of_bins(
    predictions: np.ndarray, truth: Lists, excluded: Lists, frequency: np.ndarray, bins: int = 5
) -> np.ndarray:
    """(bins,) what each bin of label popularity, rare first, adds to R@10 (MUFIN Fig. 4); `frequency` (L,) of train."""
    label_bin = xc_metrics.popularity_bins(frequency, truth, bins)
    return xc_metrics.recall_by_bin(predictions, truth, excluded, label_bin, 10, bins)


def bin_frequencies(
    frequency: np.ndarray, truth: Lists, bins: int = 5
) -> list[tuple[int, int, int]]:
    """(labels, least, most train datapoints of one) of each bin."""
    label_bin = xc_metrics.popularity_bins(frequency, truth, bins)
    counts = [frequency[label_bin == number] for number in range(bins)]
    return [
        (len(c), int(c.min(initial=10**9)) if len(c) else 0, int(c.max(initial=0))) for c in counts
    ]


def over_seeds(figures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (of a sample; 0 of one alone) of the seeds' figures, each of their shape."""
    stack = np.stack(figures)
    return stack.mean(0), stack.std(0, ddof=1) if len(stack) > 1 else np.zeros_like(stack[0])
