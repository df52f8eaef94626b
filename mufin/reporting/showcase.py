"""MUFIN looked at closely: one pair under cross-attention, where it moves datapoints, the classifiers, predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin.artifacts.curated import Split
from mufin.corpus.image_store import stored_pictures
from mufin.corpus.pixels import decode
from mufin.evaluation.evaluator import categories_of
from mufin.nn.embedding import Embedded
from mufin.nn.mufin import IMAGE, LEXICAL
from mufin.ragged import Lists, is_in
from mufin.reporting.adaptation import (
    Network,
    adapted,
    cross_weights,
    has_cross_attention,
    scores_before_and_after,
)
from mufin.reporting.classifiers import same_category, tsne
from mufin.reporting.movement import best_example, movement, plane
from mufin.reporting.svg import arrows, scatter, shade
from mufin.reporting.thumbnails import data_uri

THUMBNAIL = 96  # pixels a side
LOOKED_AT = 2000  # test datapoints, drawn at random, of the figures on cross-attention
DRAWN = 3000  # labels of the t-SNE, drawn at random
SHOWN, TOP = 8, 5  # datapoints shown with their first predictions


@dataclass(frozen=True, slots=True)
class Catalog:
    """Products, labels, test split, and the pictures of the few products that the page shows."""

    products: pa.Table
    labels: np.ndarray  # (L,) product of each label
    test: Split
    store: Path  # data/raw/images
    thumbnails: dict[int, list[str]] = field(default_factory=dict)

    def title(self, product: int) -> str:
        return self.products["title"][int(product)].as_py()

    def need(self, products: set[int]) -> None:
        """Read these products' pictures in one pass over the store; what cannot be decoded is left out, as in the bags."""
        keys = {p: self.products["images"][p].as_py() for p in products - self.thumbnails.keys()}
        found = stored_pictures(self.store, {k for own in keys.values() for k in own})
        for product, own in keys.items():
            decoded = (decode(found[k], THUMBNAIL) for k in own if k in found)
            self.thumbnails[product] = [
                data_uri(pixels) for pixels in decoded if not isinstance(pixels, str)
            ]

    def shown(self, product: int) -> dict:
        """Title and first picture ('' for none)."""
        return {
            "title": self.title(product) or "(no title)",
            "picture": next(iter(self.thumbnails[product]), ""),
        }


def cross_attention(network: Network, catalog: Catalog, predictions: np.ndarray | None) -> dict:
    """Section 5 (Fig. 5): heat map and plane of one pair, the mean change over many; `absent` says why there is none."""
    test = catalog.test
    if not has_cross_attention(network.first):
        return {
            "absent": "This run has no cross-attention (transfer.a_c): there is nothing to show here.",
            "movement": None,
        }
    if not len(test):
        return {"absent": "There are no test datapoints to look at.", "movement": None}
    rows = _drawn(len(test), LOOKED_AT)
    x = network.embed(test.product[rows])
    truth, found = test.labels.take(rows), network.retrieved(x, test.excluded.take(rows))
    before, after = scores_before_and_after(network, x[0], found)
    out = {
        "absent": "",
        "movement": movement(before, after, is_in(found, truth), found >= 0),
        "example": None,
        "datapoints": len(rows),
        "of": len(test),
        "members": len(network.members),
    }
    if predictions is not None:
        out["example"] = _example(network, catalog, x[0], rows, predictions[rows])
    return out


def figures(attention: dict) -> dict | None:
    """The movement as plain numbers."""
    moved = attention["movement"]
    return None if moved is None else asdict(moved)


def _drawn(n: int, most: int) -> np.ndarray:
    """At most `most` of n, the same each time, in order."""
    return np.sort(np.random.default_rng(0).choice(n, min(n, most), replace=False))


def _example(
    network: Network, catalog: Catalog, x: Embedded, rows: np.ndarray, predictions: np.ndarray
) -> dict | None:
    """The right prediction among the first five with the most descriptors on both sides, under A_C."""
    top, truth = predictions[:, :TOP], catalog.test.labels.take(rows)
    sizes = np.diff(network.labels.offsets)
    chosen = best_example(is_in(top, truth), np.diff(x.offsets), sizes[np.maximum(top, 0)])
    if chosen is None:
        return None
    i, place = chosen
    label, product = int(top[i, place]), int(catalog.test.product[rows[i]])
    other = int(catalog.labels[label])
    catalog.need({product, other})
    weights = cross_weights(network.first, x, i, network.labels, label)
    wrong = [int(w) for w in predictions[i] if w >= 0 and w not in set(truth[i].tolist())]
    return {
        "title": catalog.title(product) or "(no title)",
        "label_title": catalog.title(other) or "(no title)",
        "place": place + 1,
        "top": float(weights.max()),
        "columns": _heads(catalog, other, network.labels, label),
        "cells": _cells(weights, _heads(catalog, product, x, i)),
        "moved": _moved(network, catalog, x, i, label, wrong[0]) if wrong else None,
    }


def _cells(weights: np.ndarray, heads: list[dict]) -> list[dict]:
    """Lines of the heat map, shaded up to the largest weight."""
    out = []
    for head, line in zip(heads, weights):
        shades = [shade(weight / max(weights.max(), 1e-9)) for weight in line]
        out.append(
            {
                "head": head,
                "cells": [
                    {"weight": weight, "background": background, "colour": colour}
                    for weight, (background, colour) in zip(line, shades)
                ],
            }
        )
    return out


def _heads(catalog: Catalog, product: int, embedded: Embedded, i: int) -> list[dict]:
    """What each descriptor of a bag is: {name, picture}."""
    kinds, out = embedded.modality[embedded.offsets[i] : embedded.offsets[i + 1]], []
    pictures = catalog.thumbnails[product]
    same = len(pictures) == int((kinds == IMAGE).sum())  # else it is not known which is which
    for kind in kinds:
        number = sum(h["name"].startswith("picture") for h in out)
        if kind == IMAGE:
            out.append(
                {"name": f"picture {number + 1}", "picture": pictures[number] if same else ""}
            )
        else:
            out.append({"name": "title's words" if kind == LEXICAL else "title", "picture": ""})
    return out


def _moved(network: Network, catalog: Catalog, x: Embedded, i: int, right: int, wrong: int) -> dict:
    """Fig. 5c: x^1, x^{2,+}, x^{2,-}, w_+ and w_- on their principal plane, and the cosines it cannot show."""
    x1, w = x.vectors[i], network.classifiers
    ours = {label: adapted(network.first, x, i, network.labels, label) for label in (right, wrong)}
    points, share = plane(np.stack([x1, ours[right], ours[wrong], w[right], w[wrong]]))
    scores = [
        (label, float(x1 @ w[label]), float(ours[label] @ w[label])) for label in (right, wrong)
    ]
    names = ["x\u00b9", "x\u00b2\u207a", "x\u00b2\u207b", "w\u207a", "w\u207b"]
    drawing = arrows(
        points,
        names,
        [(0, 2), (0, 0), (0, 1), (1, 0), (1, 1)],
        [(0, 1), (0, 2)],  # (shape, colour)
        "The datapoint before and after cross-attention beside two classifiers",
    )
    return {
        "drawing": drawing,
        "share": 100 * share,
        "wrong_title": catalog.title(catalog.labels[wrong]) or "(no title)",
        "scores": [
            {"name": name, "before": b, "after": a}
            for name, (_, b, a) in zip(("relevant", "irrelevant"), scores)
        ],
    }


def classifiers(network: Network, catalog: Catalog) -> dict:
    """Section 6 (Fig. 6): t-SNE of w_l, coloured by the five largest categories; and the neighbours' categories, counted."""
    w = network.classifiers
    category = categories_of([catalog.products["category"][int(p)].as_py() for p in catalog.labels])
    names, counts = np.unique(category[category != ""].astype(str), return_counts=True)
    largest = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:5]]
    drawn = _drawn(len(w), DRAWN)
    points = tsne(w[drawn])
    kind = np.array([largest.index(c) if c in largest else -1 for c in category[drawn]], np.int64)
    share, chance = same_category(w, category) or (None, None)
    lines = (
        []
        if points is None
        else [
            (round(float(a), 3), round(float(b), 3), largest[k] if k >= 0 else "others")
            for (a, b), k in zip(points, kind)
        ]
    )
    drawing = None if points is None else scatter(points, kind, "t-SNE of the labels' classifiers")
    return {
        "points": lines,
        "drawing": drawing,
        "largest": largest,
        "others": len(names) > len(largest),
        "share": share,
        "chance": chance,
        "labels": len(w),
        "drawn": len(drawn),
        "members": len(network.members),
    }


def predicted(
    catalog: Catalog, predictions: dict[str, np.ndarray], titles: dict[str, str]
) -> list[dict]:
    """Section 7 (Fig. 8): datapoints drawn at random among those with truth, the first labels of MUFIN (and of text alone)."""
    test, ours = catalog.test, [n for n in ("mufin", "text_only") if n in predictions]
    truth = test.labels.minus(test.excluded)
    with_truth = np.flatnonzero(np.diff(truth.offsets))
    rows = with_truth[_drawn(len(with_truth), SHOWN)]
    top = {name: predictions[name][rows, :TOP] for name in ours}
    wanted = {int(p) for p in test.product[rows]}
    wanted |= {
        int(catalog.labels[label])
        for found in top.values()
        for label in found.ravel()
        if label >= 0
    }
    catalog.need(wanted)
    if not ours:
        return []
    return [
        {
            "query": catalog.shown(int(test.product[row])),
            "relevant": len(truth[row]),
            "answers": [
                {"title": titles[name], "labels": _answers(catalog, found[n], truth, row)}
                for name, found in top.items()
            ],
        }
        for n, row in enumerate(rows)
    ]


def _answers(catalog: Catalog, labels: np.ndarray, truth: Lists, row: int) -> list[dict]:
    right = set(truth[row].tolist())
    return [
        catalog.shown(int(catalog.labels[label])) | {"right": int(label) in right}
        for label in labels
        if label >= 0
    ]
