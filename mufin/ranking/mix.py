"""The mix of classifier score and similarity, s = beta c + (1 - beta) a (MUFIN Sec. 3.1, Prediction), and its choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from mufin.metrics import precision_at_k, recall_at_k
from mufin.ragged import Lists
from mufin.ranking.order import Ranking, top_by

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mix:
    """s = beta c + (1 - beta) a + frequency_weight log(1 + frequency) + ridge_weight r; the paper has beta alone."""

    beta: float
    frequency_weight: float = 0.0
    ridge_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidates:
    """K labels of each of n datapoints, with the scores that a mix combines."""

    ids: np.ndarray  # (n, K) int64, distinct in a row, -1 = none
    classifier: np.ndarray  # (n, K) c = <w_l, x^{2,l}>
    similarity: np.ndarray  # (n, K) a, of the retrieval
    ridge: np.ndarray | None = None  # (n, K) scores of `TitleRidge`

    def scores(self, mix: Mix, frequency: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """(len(rows), K) float64 mixed scores of datapoints `rows`; `frequency` (L,) log(1 + train datapoints)."""
        there, out = self.ids[rows] >= 0, np.zeros((len(rows), self.ids.shape[1]))
        if mix.beta > 0:
            out += mix.beta * np.where(there, self.classifier[rows], 0)
        if mix.beta < 1:
            out += (1 - mix.beta) * np.where(there, self.similarity[rows], 0)
        if mix.frequency_weight and frequency is not None:
            out += (mix.frequency_weight * frequency)[np.maximum(self.ids[rows], 0)]
        if mix.ridge_weight and self.ridge is not None:
            out += np.where(there, mix.ridge_weight * self.ridge[rows], 0)
        return out


def rank(
    candidates: Candidates,
    mix: Mix,
    excluded: Lists | None,
    frequency: np.ndarray | None = None,
    width: int = 100,
) -> Ranking:
    """Labels (n, width) and scores, best first by `mix`; mixed in float64, compared as float32."""
    return top_by(
        candidates.ids, lambda rows: candidates.scores(mix, frequency, rows), excluded, width
    )


def merit(labels: np.ndarray, truth: Lists, excluded: Lists | None) -> dict[str, float]:
    """The figures whose sum decides on valid: P@1, P@5 and R@10, in percent."""
    figures = {f"P@{k}": precision_at_k(labels, truth, k, excluded) for k in (1, 5)}
    return {
        m: round(v, 4)
        for m, v in (figures | {"R@10": recall_at_k(labels, truth, 10, excluded)}).items()
    }


def best_on_valid(
    options: Sequence[T], labels_of: Callable[[T], np.ndarray], truth: Lists, excluded: Lists | None
) -> tuple[T, list[dict[str, float]]]:
    """The option whose ten first labels have the best P@1 + P@5 + R@10, the first of equals; and the figures of each."""
    figures = [merit(labels_of(option), truth, excluded) for option in options]
    return options[max(range(len(options)), key=lambda i: sum(figures[i].values()))], figures


def choose_mix(
    candidates: Candidates,
    truth: Lists,
    excluded: Lists,
    mixes: list[Mix],
    frequency: np.ndarray | None = None,
) -> tuple[Mix, list[dict]]:
    """The best mix on valid, and the figures of each."""
    best, figures = best_on_valid(
        mixes, lambda mix: rank(candidates, mix, excluded, frequency, 10)[0], truth, excluded
    )
    return best, [asdict(mix) | row for mix, row in zip(mixes, figures)]
