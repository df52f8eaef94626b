"""beta c + (1 - beta) a: the final order of a datapoint's candidates (MUFIN Sec. 3.1, Prediction)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.errors import MufinError
from pipeline.ragged import Lists, is_in
from pipeline.xc_metrics import precision_at_k, recall_at_k

CHUNK = 2**22       # scores mixed and sorted at once: temporaries stay near 200 MB


def rank(candidates: np.ndarray, classifier: np.ndarray, similarity: np.ndarray, beta: float, excluded: Lists | None,
         frequency_term: np.ndarray | None = None, width: int = 100,
         ridge_term: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, width) int64 and scores (n, width) float32, best first, -1 and -inf where there are fewer.

    `candidates` (n, K) distinct label ids, -1 = none; `classifier` c and `similarity` a (n, K); the score is
    beta c + (1 - beta) a (+ `frequency_term` (L,) of the label, + `ridge_term` (n, K)). Filter pairs leave before the
    cut; ties (of the float32 score) by label id; a candidate of score -inf counts as none. Raises
    MufinError on a score that is NaN.
    """
    n, k = candidates.shape
    labels, scores = np.full((n, width), -1, np.int64), np.full((n, width), -np.inf, np.float32)
    step = max(1, CHUNK // max(k, 1))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        ids = candidates[rows]
        extra = None if ridge_term is None else ridge_term[rows]
        score = _mixed(ids, classifier[rows], similarity[rows], beta, frequency_term, extra)
        if excluded is not None:
            score[is_in(ids, excluded.take(rows))] = -np.inf
        order = best_first(score, ids, width)
        scores[rows, :order.shape[1]] = best = np.take_along_axis(score, order, 1)
        labels[rows, :order.shape[1]] = np.where(best > -np.inf, np.take_along_axis(ids, order, 1), -1)
    return labels, scores


def _mixed(ids: np.ndarray, c: np.ndarray, a: np.ndarray, beta: float, frequency_term: np.ndarray | None,
           ridge_term: np.ndarray | None) -> np.ndarray:
    """(n, K) float32, -inf where there is no candidate; mixed in float64, so that the rounding is the result's alone."""
    there, score = ids >= 0, np.zeros(ids.shape)
    if beta > 0:
        score += beta * np.where(there, c, 0)
    if beta < 1:
        score += (1 - beta) * np.where(there, a, 0)
    if frequency_term is not None and len(frequency_term):
        score += frequency_term[np.maximum(ids, 0)]
    if ridge_term is not None:
        score += np.where(there, ridge_term, 0)
    if np.isnan(score).any():
        raise MufinError(f"{int(np.isnan(score).sum())} scores are not a number (NaN); the vectors they come from are "
                         "broken: look at the training curve, lower the learning rate and train again")
    return np.where(there, score, -np.inf).astype(np.float32)


def best_first(score: np.ndarray, tie: np.ndarray, width: int) -> np.ndarray:
    """(n, min(width, K)) columns of the highest `score` (n, K), best first, equals by `tie` (n, K) ascending.

    Also at the cut, which np.argpartition alone leaves open: all columns level with the last are sorted along. Columns
    of score -inf come last, in no order.
    """
    n, k = score.shape
    width = min(width, k)
    if not n or not width:
        return np.zeros((n, width), np.int64)
    edge = np.partition(score, k - width, axis=1)[:, k - width, None]
    many = max(width, int(((score >= edge) & (score > -np.inf)).sum(1).max()))
    some = np.argpartition(score, k - many, axis=1)[:, k - many:]
    order = np.lexsort((np.take_along_axis(tie, some, 1), -np.take_along_axis(score, some, 1)), axis=1)[:, :width]
    return np.take_along_axis(some, order, 1)


@dataclass(frozen=True, slots=True)
class Mix:
    """s = beta c + (1 - beta) a + frequency_weight log(1 + frequency) + ridge_weight r; the paper's has beta alone."""

    beta: float
    frequency_weight: float = 0.0
    ridge_weight: float = 0.0


def choose_mix(candidates: np.ndarray, classifier: np.ndarray, similarity: np.ndarray, truth: Lists, excluded: Lists,
               mixes: list[Mix], frequency: np.ndarray, ridge: np.ndarray | None = None) -> tuple[Mix, list[dict]]:
    """The mix with the best P@1 + P@5 + R@10 on valid, and what each gave; the first of equals.

    `frequency` (L,) log(1 + train datapoints of the label); `ridge` (n, K) scores of `TitleRidge`.
    """
    table = []
    for mix in mixes:
        term = None if ridge is None or not mix.ridge_weight else mix.ridge_weight * ridge
        ranked, _ = rank(candidates, classifier, similarity, mix.beta, excluded, mix.frequency_weight * frequency, 10, term)
        figures = {f"P@{k}": round(precision_at_k(ranked, truth, k, excluded), 4) for k in (1, 5)}
        table.append(asdict(mix) | figures | {"R@10": round(recall_at_k(ranked, truth, 10, excluded), 4)})
    return mixes[max(range(len(table)), key=lambda i: sum(table[i][m] for m in ("P@1", "P@5", "R@10")))], table
