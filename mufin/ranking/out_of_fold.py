"""Scores of the left-out datapoints of a fold, reduced to the labels that a mix may rank high."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mufin.artifacts.curated import Split
from mufin.artifacts.out_of_fold import OutOfFold
from mufin.ragged import Lists, offsets_of
from mufin.ranking.mix import Candidates
from mufin.ranking.order import best_first
from mufin.ranking.predictor import Predictor

CHUNK = 2**23  # candidates scored at once


def scored_out_of_fold(
    predictor: Predictor,
    asked: Split,
    titles: np.ndarray,
    labels: np.ndarray,
    datapoints: np.ndarray,
    num_labels: int,
    keep: int,
    every: bool,
) -> OutOfFold:
    """The scores of the datapoints `asked` by the predictor of a fold.

    `titles` (P,) are those of all products. `labels` (L',) and `datapoints` (n,) are the numbers of
    the fold's labels and of its left-out datapoints in `data/curated`, which has `num_labels`.
    Candidates are the `keep` nearest labels, or with `every` all labels. Of all labels, those stay
    that are among the `keep` best by one of the scores (classifier, similarity, ridge, votes): at
    most four times `keep` per datapoint, however many labels there are. The first ten of a mix lie
    among them, but for a label that no score ranks among its first `keep`. There are no strengths
    of pairs in train: a product that is left out has none.
    """
    k = len(predictor.index) if every else keep
    step = max(1, CHUNK // max(k, 1))
    ids, lengths = [], []
    scores: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(asked), step):
        some = asked.take(np.arange(start, min(start + step, len(asked))))
        candidates = _candidates(predictor, some, titles, k)
        kept = _among_the_best(candidates, keep)
        lengths.append(kept.sum(1))
        ids.append(labels[candidates.ids[kept]])
        for name, values in _scores(candidates).items():
            scores.setdefault(name, []).append(values[kept].astype(np.float32))
    counts = np.zeros(num_labels, np.int64)
    counts[labels] = predictor.index.frequency
    offsets = offsets_of(np.concatenate(lengths))
    return OutOfFold(
        datapoints,
        Lists(offsets, np.concatenate(ids)),
        {name: np.concatenate(values) for name, values in scores.items()},
        replace(asked.labels, values=labels[asked.labels.values]),
        replace(asked.excluded, values=labels[asked.excluded.values]),
        counts,
    )


def _candidates(predictor: Predictor, asked: Split, titles: np.ndarray, k: int) -> Candidates:
    embedded = predictor.embed(asked.product)
    candidates = predictor.candidates(embedded, k, asked.excluded, titles[asked.product].tolist())
    return candidates.only(embedded[0].sizes > 0)


def _scores(candidates: Candidates) -> dict[str, np.ndarray]:
    """The scores that there are, (n, K) each."""
    named = {
        "classifier": candidates.classifier,
        "similarity": candidates.similarity,
        "ridge": candidates.ridge,
        "votes": candidates.votes,
    }
    return {name: values for name, values in named.items() if values is not None}


def _among_the_best(candidates: Candidates, keep: int) -> np.ndarray:
    """(n, K) bool: the candidates that are among the `keep` best by one of the scores."""
    there = candidates.ids >= 0
    if candidates.ids.shape[1] <= keep:
        return there
    out = np.zeros(there.shape, bool)
    for values in _scores(candidates).values():
        order = best_first(np.where(there, values, -np.inf), candidates.ids, keep)
        np.put_along_axis(out, order, True, axis=1)
    return out & there
