"""The report's sections about single products: cross-attention, classifiers, predictions.

Each function returns what the page's template reads. Where MUFIN is an ensemble of networks (its
members), the first one is shown.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from mufin.corpus.modality import IMAGE, LEXICAL
from mufin.evaluation.evaluator import categories_of
from mufin.nn.embedding import Embedded
from mufin.ragged import Lists, is_in
from mufin.ranking.predictor import Predictor
from mufin.reporting import svg
from mufin.reporting.adaptation import (
    adapted,
    attention_weights,
    has_cross_attention,
    scores_before_and_after,
)
from mufin.reporting.catalog import Catalog
from mufin.reporting.classifiers import same_category, tsne
from mufin.reporting.gain import best_example, gains, plane
from mufin.reporting.thumbnails import data_uri

THUMBNAIL = 96  # pixels a side
LOOKED_AT = 2000  # test datapoints, drawn at random, of the figures on cross-attention
DRAWN = 3000  # labels of the t-SNE, drawn at random
LARGEST = 5  # categories that have a colour of their own in the t-SNE
SHOWN, TOP = 8, 5  # datapoints shown, and the first predictions of each


def cross_attention(
    predictor: Predictor, shortlist: int, catalog: Catalog, predictions: np.ndarray | None
) -> dict:
    """MUFIN Fig. 5: weights and plane of one pair, the mean gain over many pairs.

    Where there is no cross-attention, `absent` says why.
    `shortlist`: labels retrieved per datapoint. `predictions` (n, width): MUFIN's on test; None
    where there are none.
    """
    test = catalog.test
    if not has_cross_attention(predictor.networks[0]):
        absent = "This run has no cross-attention (transfer.a_c), so there is nothing to show here."
        return {"absent": absent, "gains": None}
    if not len(test):
        return {"absent": "There are no test datapoints to show.", "gains": None}
    rows = _drawn(len(test), LOOKED_AT)
    x = predictor.embed(test.product[rows])
    truth, excluded = test.labels.take(rows), test.excluded.take(rows)
    found, _ = predictor.retrieve(x, shortlist, excluded)
    before, after = scores_before_and_after(predictor, x[0], found)
    example = None
    if predictions is not None:
        example = _example(predictor, catalog, x[0], rows, predictions[rows])
    return {
        "absent": "",
        "gains": gains(before, after, is_in(found, truth), found >= 0),
        "example": example,
        "datapoints": len(rows),
        "of": len(test),
        "members": len(predictor.networks),
    }


def figures(attention: dict) -> dict | None:
    """The gains as plain numbers."""
    return None if attention["gains"] is None else asdict(attention["gains"])


def _drawn(n: int, most: int) -> np.ndarray:
    """At most `most` of n, the same each time, in order."""
    return np.sort(np.random.default_rng(0).choice(n, min(n, most), replace=False))


def _example(
    predictor: Predictor, catalog: Catalog, x: Embedded, rows: np.ndarray, predictions: np.ndarray
) -> dict | None:
    """One right prediction: of the first five, that with the most descriptors on both sides."""
    top, truth = predictions[:, :TOP], catalog.test.labels.take(rows)
    labels = predictor.index.labels[0]
    sizes = np.diff(labels.offsets)
    chosen = best_example(is_in(top, truth), np.diff(x.offsets), sizes[np.maximum(top, 0)])
    if chosen is None:
        return None
    i, place = chosen
    label, product = int(top[i, place]), int(catalog.test.product[rows[i]])
    other = int(catalog.labels[label])
    catalog.load_pictures({product, other}, THUMBNAIL)
    weights = attention_weights(predictor.networks[0], x, i, labels, label)
    right = set(truth[i].tolist())
    wrong = [int(w) for w in predictions[i] if w >= 0 and w not in right]
    return {
        "title": catalog.title(product),
        "label_title": catalog.title(other),
        "place": place + 1,
        "top": float(weights.max()),
        "columns": _heads(catalog, other, labels, label),
        "lines": _heat_map(weights, _heads(catalog, product, x, i)),
        "plane": _plane(predictor, catalog, x, i, label, wrong[0]) if wrong else None,
    }


def _heat_map(weights: np.ndarray, heads: list[dict]) -> list[dict]:
    """A line per descriptor of the datapoint, its cells shaded up to the largest weight."""
    top = max(float(weights.max()), 1e-9)
    lines = []
    for head, line in zip(heads, weights):
        shades = [svg.shade(weight / top) for weight in line]
        cells = [
            {"weight": weight, "background": background, "colour": colour}
            for weight, (background, colour) in zip(line, shades)
        ]
        lines.append({"head": head, "cells": cells})
    return lines


def _heads(catalog: Catalog, product: int, embedded: Embedded, i: int) -> list[dict]:
    """What each descriptor of a bag is: {name, picture}."""
    kinds = embedded.modality[embedded.offsets[i] : embedded.offsets[i + 1]]
    pictures = catalog.pictures[product]
    known = len(pictures) == int((kinds == IMAGE).sum())  # else it is not known which is which
    texts = ["title"] if catalog.products["title"][product].as_py() else []
    texts += [f"text {number}" for number in range(1, len(kinds) + 1)]
    heads, number = [], 0
    for kind in kinds:
        if kind != IMAGE:
            name = "words" if kind == LEXICAL else texts.pop(0)
            heads.append({"name": name, "picture": ""})
            continue
        picture = data_uri(pictures[number]) if known else ""
        number += 1
        heads.append({"name": f"picture {number}", "picture": picture})
    return heads


def _plane(
    predictor: Predictor, catalog: Catalog, x: Embedded, i: int, right: int, wrong: int
) -> dict:
    """MUFIN Fig. 5c for one datapoint, a right label (+) and a wrong one (-).

    x^1, x^{2,+}, x^{2,-}, w_+ and w_- on their principal plane, and the cosines, which the plane
    cannot show exactly.
    """
    network, index, x1 = predictor.networks[0], predictor.index, x.vectors[i]
    x2 = {label: adapted(network, x, i, index.labels[0], label) for label in (right, wrong)}
    w = {label: index.classifiers[0][label] for label in (right, wrong)}
    points, share = plane(np.stack([x1, x2[right], x2[wrong], w[right], w[wrong]]))
    drawing = svg.arrows(
        points,
        names=["x\u00b9", "x\u00b2\u207a", "x\u00b2\u207b", "w\u207a", "w\u207b"],
        looks=[(0, 2), (0, 0), (0, 1), (1, 0), (1, 1)],  # (shape, colour)
        moves=[(0, 1), (0, 2)],
        title="The datapoint before and after cross-attention beside two classifiers",
    )
    scores = [
        {"name": name, "before": float(x1 @ w[label]), "after": float(x2[label] @ w[label])}
        for name, label in (("right", right), ("wrong", wrong))
    ]
    wrong_title = catalog.title(int(catalog.labels[wrong]))
    return {"drawing": drawing, "share": 100 * share, "wrong_title": wrong_title, "scores": scores}


def classifiers(predictor: Predictor, catalog: Catalog) -> dict:
    """MUFIN Fig. 6: t-SNE of the classifiers w_l, and how often neighbours share a category."""
    w = predictor.index.classifiers[0]
    category = categories_of([catalog.products["category"][int(p)].as_py() for p in catalog.labels])
    names, counts = np.unique(category[category != ""].astype(str), return_counts=True)
    largest = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:LARGEST]]
    drawn = _drawn(len(w), DRAWN)
    kind = np.array([largest.index(c) if c in largest else -1 for c in category[drawn]], np.int64)
    share, chance = same_category(w, category) or (None, None)
    points, drawing, lines = tsne(w[drawn]), None, []
    if points is not None:
        drawing = svg.scatter(points, kind, "t-SNE of the labels' classifiers")
        for number in np.argsort(np.where(kind < 0, LARGEST, kind), kind="stable"):  # others last
            name = largest[kind[number]] if kind[number] >= 0 else "others"
            lines.append((*np.round(points[number].astype(float), 3).tolist(), name))
    return {
        "points": lines,
        "drawing": drawing,
        "largest": largest,
        "others": len(names) > len(largest),
        "share": share,
        "chance": chance,
        "labels": len(w),
        "drawn": len(drawn),
        "members": len(predictor.networks),
    }


def predicted(
    catalog: Catalog, predictions: dict[str, np.ndarray], titles: dict[str, str]
) -> list[dict]:
    """MUFIN Fig. 8: datapoints drawn at random among those with truth, and their first labels.

    `predictions` {method: (n, width)}, `titles` {method: its name on the page}.
    """
    test = catalog.test
    truth = test.labels.minus(test.excluded)
    with_truth = np.flatnonzero(truth.lengths())
    rows = with_truth[_drawn(len(with_truth), SHOWN)]
    top = {name: found[rows, :TOP] for name, found in predictions.items()}
    wanted = {int(p) for p in test.product[rows]}
    for found in top.values():
        wanted |= {int(p) for p in catalog.labels[found[found >= 0]]}
    catalog.load_pictures(wanted, THUMBNAIL)
    if not top:
        return []
    out = []
    for n, row in enumerate(rows):
        answers = [
            {"title": titles[name], "labels": _answers(catalog, found[n], truth, row)}
            for name, found in top.items()
        ]
        query = _product(catalog, int(test.product[row]))
        out.append({"query": query, "relevant": len(truth[row]), "answers": answers})
    return out


def _answers(catalog: Catalog, labels: np.ndarray, truth: Lists, row: int) -> list[dict]:
    right = set(truth[row].tolist())
    return [
        _product(catalog, int(catalog.labels[label])) | {"right": int(label) in right}
        for label in labels
        if label >= 0
    ]


def _product(catalog: Catalog, product: int) -> dict:
    """Title and first picture ('' for none)."""
    pictures = catalog.pictures[product]
    picture = data_uri(pictures[0]) if pictures else ""
    return {"title": catalog.title(product), "picture": picture}
