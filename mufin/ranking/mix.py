"""The mix of classifier score and similarity (MUFIN Sec. 3.1, Prediction), chosen on valid.

`mufin.ranking.mix_choice` chooses one on folds of train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np

from mufin.metrics import precision_at_k, recall_at_k
from mufin.ragged import Lists
from mufin.ranking.order import Ranking, top_by

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mix:
    """s = n (beta c + (1 - beta) a) + frequency_weight f + ridge_weight r + vote_weight v
    + pair_weight p.

    c is the classifier score, a the similarity, f = log(1 + train datapoints of the label), r the
    score of the title ridge, v the votes of the nearest train datapoints and p the strength of the
    pair in train. n, the network weight, is 1; with 0 the ridge or the votes rank alone. The paper
    only has beta.
    """

    beta: float
    frequency_weight: float = 0.0
    ridge_weight: float = 0.0
    vote_weight: float = 0.0
    pair_weight: float = 0.0
    network_weight: float = 1.0

    def weights(self) -> dict[str, float]:
        """The weights by name; that of the network only if it is not 1."""
        named = asdict(self)
        if self.network_weight == 1:
            del named["network_weight"]
        return named

    def of_network(self) -> Mix:
        """The same mix where there is no ridge and no votes, which may have been all of it."""
        return replace(self, network_weight=1.0)


@dataclass(frozen=True, slots=True)
class Candidates:
    """K candidate labels for each of n datapoints, with the scores that a mix combines."""

    ids: np.ndarray  # (n, K) int64, distinct per row, -1 = none
    classifier: np.ndarray  # (n, K) c = <w_l, x^{2,l}>
    similarity: np.ndarray  # (n, K) a, from retrieval
    ridge: np.ndarray | None = None  # (n, K) r, scores of `TitleRidge`
    votes: np.ndarray | None = None  # (n, K) v, of `NeighbourVotes`
    pairs: np.ndarray | None = None  # (n, K) p, of `TrainPairs`

    def only(self, rows: np.ndarray) -> Candidates:
        """Those of the datapoints `rows`, (n,) bool; the others have no candidates."""
        return self if rows.all() else replace(self, ids=np.where(rows[:, None], self.ids, -1))

    def scores(self, mix: Mix, frequency: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """(len(rows), K) float64 mixed scores of the datapoints `rows`.

        `frequency` (L,) is log(1 + train datapoints) of each label. Scores of missing candidates
        and scores with weight 0 are not read, so they may be NaN.
        """
        there, out = self.ids[rows] >= 0, np.zeros((len(rows), self.ids.shape[1]))
        network = mix.network_weight
        if network and mix.beta > 0:
            out += network * mix.beta * np.where(there, self.classifier[rows], 0)
        if network and mix.beta < 1:
            out += network * (1 - mix.beta) * np.where(there, self.similarity[rows], 0)
        if mix.frequency_weight and frequency is not None:
            out += (mix.frequency_weight * frequency)[np.maximum(self.ids[rows], 0)]
        if mix.ridge_weight and self.ridge is not None:
            out += np.where(there, mix.ridge_weight * self.ridge[rows], 0)
        if mix.vote_weight and self.votes is not None:
            out += np.where(there, mix.vote_weight * self.votes[rows], 0)
        if mix.pair_weight and self.pairs is not None:
            out += mix.pair_weight * self.pairs[rows]
        return out


def rank(
    candidates: Candidates,
    mix: Mix,
    excluded: Lists | None,
    frequency: np.ndarray | None = None,
    width: int = 100,
) -> Ranking:
    """The `width` best labels of each datapoint by `mix`, and their scores, as `order.top` does.

    Scores are mixed in float64 and compared as float32.
    """

    def scores_of(rows: np.ndarray) -> np.ndarray:
        return candidates.scores(mix, frequency, rows)

    return top_by(candidates.ids, scores_of, excluded, width)


def merit(labels: np.ndarray, truth: Lists, excluded: Lists | None) -> dict[str, float]:
    """P@1, P@5 and R@10 of ranked `labels`, in percent; their sum decides on valid."""
    figures = {f"P@{k}": precision_at_k(labels, truth, k, excluded) for k in (1, 5)}
    figures["R@10"] = recall_at_k(labels, truth, 10, excluded)
    return {name: round(value, 4) for name, value in figures.items()}


def best_on_valid(
    options: Sequence[T], labels_of: Callable[[T], np.ndarray], truth: Lists, excluded: Lists | None
) -> tuple[T, list[dict[str, float]]]:
    """The option with the largest P@1 + P@5 + R@10, the first of equals, and the figures of each.

    `labels_of(option)` returns at least ten ranked labels per datapoint.
    """
    figures = [merit(labels_of(option), truth, excluded) for option in options]
    best = max(range(len(options)), key=lambda i: sum(figures[i].values()))
    return options[best], figures


def choose_mix(
    candidates: Candidates,
    truth: Lists,
    excluded: Lists,
    mixes: list[Mix],
    frequency: np.ndarray | None = None,
) -> tuple[Mix, list[dict]]:
    """The best of `mixes` on valid, and the weights and figures of each."""

    def labels_of(mix: Mix) -> np.ndarray:
        return rank(candidates, mix, excluded, frequency, 10)[0]

    best, figures = best_on_valid(mixes, labels_of, truth, excluded)
    return best, [mix.weights() | row for mix, row in zip(mixes, figures)]
