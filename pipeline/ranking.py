"""beta c + (1 - beta) a: the final order of a datapoint's candidates (MUFIN Sec. 3.1, Prediction)."""

from __future__ import annotations

import numpy as np

from pipeline.ragged import Lists
from pipeline.xc_metrics import is_in, precision_at_k


def rank(candidates: np.ndarray, classifier: np.ndarray, similarity: np.ndarray, beta: float, excluded: Lists | None,
         frequency_term: np.ndarray | None = None, width: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, width) int64 and scores (n, width) float32, best first, -1 and -inf where there are fewer.

    `candidates` (n, K) label ids, -1 = none; `classifier` c and `similarity` a (n, K); score = beta c + (1 - beta) a
    (+ `frequency_term` (L,) of the label). Filter pairs leave before the cut; ties by label id.
    """
    score = beta * classifier.astype(np.float64)
    if beta < 1:
        score = score + (1 - beta) * np.where(candidates >= 0, similarity, 0.0)
    if frequency_term is not None:
        score = score + frequency_term[np.maximum(candidates, 0)]
    gone = candidates < 0
    if excluded is not None and len(excluded.values):
        gone = gone | is_in(candidates, excluded)
    score = np.where(gone, -np.inf, score).astype(np.float32)
    order = np.lexsort((candidates, -score), axis=1)[:, :width]
    labels, scores = np.take_along_axis(candidates, order, 1), np.take_along_axis(score, order, 1)
    labels = np.where(scores == -np.inf, -1, labels)
    short = max(width - labels.shape[1], 0)
    return (np.pad(labels, ((0, 0), (0, short)), constant_values=-1).astype(np.int64),
            np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf))


def choose_mix(candidates: np.ndarray, classifier: np.ndarray, similarity: np.ndarray, truth: Lists, excluded: Lists,
               betas: list[float], frequency_weights: list[float], frequency: np.ndarray):
    """((beta, weight), table): the mix with the best P@1 + P@5 on valid, and what each gave; the first of equals.

    `weight` is that of `frequency` (L,), log(1 + train datapoints of the label).
    """
    table = []
    for weight in frequency_weights:
        for beta in betas:
            ranked, _ = rank(candidates, classifier, similarity, beta, excluded, weight * frequency, width=5)
            figures = {f"P@{k}": round(precision_at_k(ranked, truth, k, excluded), 4) for k in (1, 5)}
            table.append({"beta": beta, "frequency_weight": weight, **figures})
    best = max(table, key=lambda row: row["P@1"] + row["P@5"])
    return (best["beta"], best["frequency_weight"]), table
