"""Fill in the blank, and the compatibility of outfits (MUFIN Table 3; Vasileva et al. 2018).

A datapoint is an outfit without one item. An answer is scored by its own vector alone, as a label
that training has not seen (alpha = 1, so w = z^1): items of the test need not be labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mufin.artifacts.outfits import Compatibility, Outfits, Questions
from mufin.corpus.united import united
from mufin.evaluation.methods import PARTS
from mufin.metrics import area_under_roc, blanks_filled
from mufin.nn.embedding import Embedded
from mufin.ragged import Lists
from mufin.ranking.own_vectors import own_vector_parts
from mufin.ranking.predictor import Predictor

DIGITS = 4  # of figures in percent


def outfit_figures(
    predictor: Predictor, outfits: Outfits | None, beta: float
) -> dict[str, dict[str, float]]:
    """{valid, test: figures in percent}; {} without outfits.

    `accuracy` is the share of questions whose right answer has the best score (chance: 25 with four
    answers), `AUC` that of telling outfits from sets of items drawn at random. Both have a standard
    error over questions, over sets. `text_only` and `image_only` are the accuracy with the
    descriptors of one modality of the given items. AUC is left out with early fusion. All processes
    of the stage must call it.
    """
    if outfits is None:
        return {}
    out = {}
    for split in ("valid", "test"):
        questions, sets = outfits.questions.of(split), outfits.compatibility.of(split)
        figures: dict[str, float] = {}
        if len(questions):
            figures |= _with_error(
                "accuracy", *accuracy(fill(predictor, questions, beta), questions)
            )
            figures |= _parts(predictor, questions, beta)
        if sets.compatible.any() and not sets.compatible.all() and predictor.store.fused is None:
            scores = compatibility(predictor, sets.items, beta)
            figures |= _with_error("AUC", *separation(scores, sets))
        out[split] = figures
    return out


def accuracy(scores: np.ndarray, questions: Questions) -> tuple[float, float]:
    """The share of questions answered right, in [0, 1], and its standard error.

    `scores` (n, A), -inf where a question has fewer answers.
    """
    hits = blanks_filled(scores, questions.right)
    error = hits.std(ddof=1) / np.sqrt(len(hits)) if len(hits) > 1 else 0.0
    return float(hits.mean()), float(error)


def separation(scores: np.ndarray, sets: Compatibility) -> tuple[float, float]:
    """The area under the ROC curve of scores (n,), in [0, 1], and its standard error.

    Sets of one item have no score (NaN) and are left out.
    """
    told = ~np.isnan(scores)
    right = sets.compatible[told]
    return area_under_roc(scores[told][right], scores[told][~right])


def fill(
    predictor: Predictor, questions: Questions, beta: float, modalities: set[int] | None = None
) -> np.ndarray:
    """(n, A) float32 scores of the answers of each question; -inf where it has fewer.

    With `modalities` (codes) the given items have descriptors of these alone.
    """
    x = predictor.embed(questions.product, modalities)
    return answer_scores(predictor, x, questions.answers, beta)


def compatibility(predictor: Predictor, sets: Lists, beta: float) -> np.ndarray:
    """(n,) float64: the mean score of each item of a set, given the others; NaN for one item."""
    rests, item = without_each(sets)
    x = predictor.embed(np.arange(len(rests)), None, united(predictor.store, rests))
    one_each = Lists(np.arange(len(item) + 1), item)
    scores = answer_scores(predictor, x, one_each, beta)[:, 0]
    owner = np.repeat(np.arange(len(sets)), np.where(sets.lengths() > 1, sets.lengths(), 0))
    counts = np.bincount(owner, minlength=len(sets))
    total = np.bincount(owner, scores.astype(np.float64), minlength=len(sets))
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def without_each(sets: Lists) -> tuple[Lists, np.ndarray]:
    """Each set without each of its items: the (m,) rests, and the (m,) items that are left out.

    Sets of one item have no such rest.
    """
    rests, items = [], []
    for row in range(len(sets)):
        own = sets[row]
        for place in range(len(own) if len(own) > 1 else 0):
            rests.append(np.delete(own, place))
            items.append(own[place])
    return Lists.of_rows(rests), np.array(items, np.int64)


def answer_scores(
    predictor: Predictor, x: list[Embedded], answers: Lists, beta: float
) -> np.ndarray:
    """(n, A) float32: beta c + (1 - beta) a of the products `answers` (n,) by alpha = 1.

    c is the classifier score with w = z^1, a the cosine of x^1 and z^1; both are means over the
    members. -inf where a datapoint has fewer than A answers.
    """
    products, ids = np.unique(answers.values, return_inverse=True)
    ids = Lists(answers.offsets, ids).padded()
    labels = predictor.embed(products)
    classifier, cosine = own_vector_parts(predictor.networks, x, labels, ids, predictor.device)
    scores = beta * classifier + (1 - beta) * cosine
    return np.where(ids >= 0, scores, -np.inf).astype(np.float32)


def _parts(predictor: Predictor, questions: Questions, beta: float) -> dict[str, float]:
    """The accuracies with one modality of the given items, if there are pictures and others."""
    there = set(predictor.store.modalities)
    if "image" not in there or len(there) < 2:
        return {}
    figures = {}
    for name, modalities in PARTS.items():
        share, _ = accuracy(fill(predictor, questions, beta, modalities), questions)
        figures[name] = round(100 * share, DIGITS)
    return figures


def _with_error(name: str, value: float, error: float) -> Mapping[str, float]:
    return {name: round(100 * value, DIGITS), f"{name}_error": round(100 * error, DIGITS)}
