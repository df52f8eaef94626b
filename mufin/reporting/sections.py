"""The report's sections from predictions: what was run, comparison, breakdowns, curves.

Each function returns what the page's template reads. Figures are in percent. A figure of a
breakdown is bold where it leads the second by more than the standard error of their difference over
datapoints.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin.artifacts.curated import Curated, Split
from mufin.corpus.descriptors import DescriptorStore
from mufin.evaluation import breakdowns
from mufin.evaluation.evaluator import categories_of
from mufin.reporting.svg import curve

CATEGORIES = 30  # shown by name; the rest together
BINS = 5
WIDTH = 10  # first predictions that the report reads


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the comparison on test."""

    name: str
    title: str
    figures: np.ndarray  # (n, 3) P@1, P@5, R@10 of each datapoint, the mean over seeds
    by_bin: np.ndarray  # (n, BINS) what each bin of label popularity adds to R@10, the same
    first: np.ndarray  # (n, WIDTH) predictions of one seed, best first, -1 where there is none

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        predictions: Sequence[np.ndarray],
        shown: int,
        test: Split,
        frequency: np.ndarray,
    ) -> Method:
        """From the predictions (n, width) of each seed; those of seed number `shown` are kept as
        examples.

        `frequency` (L,): train datapoints of each label.
        """
        truth = test.labels, test.excluded
        wide = [_at_least_wide(p) for p in predictions]
        figures = [breakdowns.per_datapoint(p, *truth) for p in wide]
        by_bin = [breakdowns.bins_per_datapoint(p, *truth, frequency, BINS) for p in wide]
        first = wide[shown][:, :WIDTH].copy()
        return cls(name, title, np.mean(figures, axis=0), np.mean(by_bin, axis=0), first)


def _at_least_wide(predictions: np.ndarray) -> np.ndarray:
    missing = max(WIDTH - predictions.shape[1], 0)
    return np.pad(predictions, ((0, 0), (0, missing)), constant_values=-1)


def facts(data: Curated, products: pa.Table) -> dict:
    """What was run: sizes of the catalog and of its splits."""
    pictures = np.array([len(keys) for keys in products["images"].to_pylist()])
    titles = np.array([bool(title) for title in products["title"].to_pylist()])
    return {
        "products": len(products),
        "labels": len(data.labels),
        "datapoints": {name: len(split) for name, split in data.splits.items()},
        "labels_per_datapoint": len(data.train.labels.values) / max(len(data.train), 1),
        "pictures_per_product": float(pictures.mean()),
        "no_title": int((~titles).sum()),
        "no_picture": int((pictures == 0).sum()),
    }


def comparison(rows: list[dict], columns: Sequence[str], bold: dict[str, str | None]) -> dict:
    """The table of metrics/compare.json, `rows`, by group; `bold` {column: row that leads}.

    A cell is a mean, the standard deviation over seeds where there are several, and the standard
    error over datapoints.
    """
    groups: list[dict] = []
    for row in rows:
        if not groups or groups[-1]["name"] != row["group"]:
            groups.append({"name": row["group"], "rows": []})
        cells = []
        for column in columns if row["metrics"] else ():
            mean, spread = row["metrics"][column]
            several = len(row["seeds"]) > 1
            cells.append(
                {
                    "text": f"{mean:.2f}",
                    "spread": f"± {spread:.2f}" if several else "",
                    "error": _in_brackets(row["standard_errors"].get(column)),
                    "best": bold.get(column) == row["row"],
                }
            )
        groups[-1]["rows"].append({"title": row["title"], "cells": cells, "failed": row["failed"]})
    return {"columns": list(columns), "groups": groups}


def _in_brackets(error: float | None) -> str:
    return "" if error is None else f"({error:.2f})"


def by_category(methods: list[Method], shown: list[Method], category: np.ndarray) -> dict | None:
    """P@5 in each category (MUFIN Table 6) of the methods `shown`, or None without categories.

    `category` (n,) str, of each test datapoint. `all` holds (category, datapoints, P@5) of every
    method.
    """
    names, group = breakdowns.by_category(category, CATEGORIES)
    if not methods or len(names) < 2:
        return None
    counts = np.bincount(group, minlength=len(names))
    means, errors = {}, {}
    for method in methods:
        mean, error = breakdowns.of_groups(method.figures[:, 1:2], group, len(names))
        means[method.name], errors[method.name] = mean[:, 0], error[:, 0]
    lines = []
    for i, name in enumerate(names):
        best = breakdowns.leader(np.array([m.figures[group == i, 1] for m in shown]))
        cells = [
            {"value": means[m.name][i], "error": errors[m.name][i], "best": j == best}
            for j, m in enumerate(shown)
        ]
        lines.append({"name": name, "count": int(counts[i]), "cells": cells})
    return {
        "titles": [m.title for m in shown],
        "lines": lines,
        "top": max((float(means[m.name].max()) for m in shown), default=0.0),
        "all": {n: list(zip(names, counts.tolist(), mean)) for n, mean in means.items()},
    }


def by_popularity(methods: list[Method], test: Split, frequency: np.ndarray) -> dict | None:
    """What each bin of label popularity adds to R@10 (MUFIN Fig. 4), or None.

    `frequency` (L,): train datapoints of each label. `all` holds the bins of every method.
    """
    if not methods or not len(test):
        return None
    means = {m.name: m.by_bin.mean(0) for m in methods}
    best = [breakdowns.leader(np.array([m.by_bin[:, b] for m in methods])) for b in range(BINS)]
    best_total = breakdowns.leader(np.array([m.figures[:, 2] for m in methods]))
    lines, top = [], 0.0
    for i, method in enumerate(methods):
        parts = [{"value": v, "best": i == b} for v, b in zip(means[method.name], best)]
        at_10 = method.figures[:, 2]
        error = breakdowns.standard_error(at_10)
        total = {"value": at_10.mean(), "error": error, "best": i == best_total}
        lines.append({"title": method.title, "parts": parts, "total": total})
        top = max(top, at_10.mean())
    return {
        "edges": breakdowns.bin_frequencies(frequency, test.labels, BINS),
        "lines": lines,
        "top": top,
        "all": means,
    }


def by_pictures(shown: list[Method], pictures: np.ndarray) -> dict:
    """P@1, P@5 and R@10 by number of pictures; `pictures` (n,) of each test datapoint."""
    return _groups(shown, breakdowns.by_pictures(pictures), breakdowns.PICTURES)


def by_modality(shown: list[Method], has_title: np.ndarray, pictures: np.ndarray) -> dict:
    """P@1, P@5 and R@10 by whether there are a title and pictures.

    `has_title` (n,) bool and `pictures` (n,) numbers, of each test datapoint.
    """
    group = breakdowns.by_modality(has_title, pictures > 0)
    return _groups(shown, group, breakdowns.MODALITIES)


def _groups(shown: list[Method], group: np.ndarray, names: tuple[str, ...]) -> dict:
    """Figures of the groups of datapoints that are not empty."""
    counts = np.bincount(group, minlength=len(names))
    figures = [breakdowns.of_groups(m.figures, group, len(names)) for m in shown]
    lines = []
    for i, name in enumerate(names):
        if not counts[i]:
            continue
        own = np.array([m.figures[group == i] for m in shown])  # (methods, datapoints, 3)
        best = [breakdowns.leader(own[:, :, c]) for c in range(own.shape[2])] if shown else []
        cells = [
            {"value": means[i, c], "error": errors[i, c], "best": best[c] == j}
            for j, (means, errors) in enumerate(figures)
            for c in range(means.shape[1])
        ]
        lines.append({"name": name, "count": int(counts[i]), "cells": cells})
    return {"titles": [m.title for m in shown], "lines": lines}


def picture_counts(test: Split, products: pa.Table, store: DescriptorStore) -> np.ndarray:
    """(n,) pictures of each test datapoint: those that could be decoded, if any were."""
    if "image" in store.modalities:
        return store.image_lists.lengths()[test.product]
    images = products["images"]
    return np.array([len(images[int(p)].as_py()) for p in test.product], np.int64)


def have_title(test: Split, products: pa.Table) -> np.ndarray:
    """(n,) bool: whether each test datapoint has a title."""
    titles = products["title"]
    return np.array([bool(titles[int(p)].as_py()) for p in test.product], bool)


def datapoint_categories(test: Split, products: pa.Table) -> np.ndarray:
    """(n,) category of each test datapoint, '' for none."""
    paths = products["category"]
    return categories_of([paths[int(p)].as_py() for p in test.product])


def curves(files: dict[str, Path]) -> list[dict]:
    """A drawing per column of the training curves, `files` {title: CSV}; none of a missing file."""
    out = []
    for title, path in files.items():
        if not path.exists():
            continue
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        for name in [n for n in (rows[0] if rows else {}) if n != "epoch"]:
            points = np.array([(float(row["epoch"]), float(row[name])) for row in rows])
            what = f"{title}: {name.replace('valid_', 'valid ')}"
            out.append({"title": what, "drawing": curve(points, f"{what} per epoch")})
    return out
