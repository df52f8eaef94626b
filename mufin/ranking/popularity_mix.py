"""A score that treats rare and popular labels differently, which the paper leaves to future work.

(MUFIN, Limitations and Future Work.) Two experts score the candidates of a datapoint: one is learnt
for popular labels, one for rare labels. Each has the logits

    u_c(n) c + u_1(n) c1 + u_a(n) a + b(n)

of the classifier score c, the classifier score c1 of the variant alpha = 1 and the similarity a,
with weights that depend on the label's number of train datapoints n. The probabilities of both
experts over the candidates are mixed: p = (1 - g) p_popular + g p_rare. Where the popular expert is
sure, it decides the first places; where it is not, the rare expert adds rare labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.errors import MufinError
from mufin.ragged import Lists, is_in
from mufin.ranking.order import CHUNK

FEATURES = ("c", "c1", "a")  # the order of all `features` here
EXPERTS = {"popular": 0.0, "rare": 3.0}  # a pair is weighted by its inverse propensity ** this


@dataclass(frozen=True, slots=True)
class PopularityMix:
    """Weights of one expert (MUFIN's own score) or of two, at each knot of log(1 + n).

    Between knots the weights are linear, beyond them constant.
    """

    knots: np.ndarray  # (knots,) ascending
    weights: np.ndarray  # (experts, knots, 4): of c, c1, a and 1
    share: float  # g, the share of the second expert

    def scores(
        self,
        candidates: np.ndarray,
        features: np.ndarray,
        frequency: np.ndarray,
        excluded: Lists | None = None,
    ) -> np.ndarray:
        """(n, K) float64 log p, or the logits of a single expert; -inf for missing candidates.

        `candidates` (n, K) are label ids, -1 = missing, `features` (3, n, K) their c, c1 and a, and
        `frequency` (L,) is log(1 + n). Filter pairs (`excluded`) also count as missing. Raises
        MufinError if a score is NaN.
        """
        tables = [hats_of(self.knots, frequency) @ w for w in self.weights]  # (L, 4) per expert
        out = np.empty(candidates.shape)
        step = max(1, CHUNK // max(candidates.shape[1], 1))
        for start in range(0, len(candidates), step):
            rows = np.arange(start, min(start + step, len(candidates)))
            ids, x = candidates[rows], features[:, rows]
            there = usable(ids, None if excluded is None else excluded.take(rows))
            logits = [logits_of(ids, x, table, there) for table in tables]
            out[rows] = (
                logits[0] if len(logits) == 1 else mixed_scores(logits[0], logits[1], self.share)
            )
        return out

    def readable(self) -> dict:
        """The weights at each knot by name, rounded, for a metrics file."""
        names, at_knots = [*FEATURES, "1"], []
        for k, knot in enumerate(self.knots):
            row: dict = {"train_datapoints": round(float(np.expm1(knot)), 1)}
            for expert, w in zip(EXPERTS, self.weights):
                row[expert] = dict(zip(names, np.round(w[k], 3).tolist()))
            at_knots.append(row)
        return {"rare_share": self.share, "weights": at_knots}


def fixed_mix(beta: float) -> PopularityMix:
    """MUFIN's own score beta c + (1 - beta) a, for every frequency."""
    return PopularityMix(np.zeros(1), np.array([own_weights(beta)])[None], 0.0)


def own_weights(beta: float) -> list[float]:
    """The weights of c, c1, a and 1 in MUFIN's own score."""
    return [beta, 0.0, 1 - beta, 0.0]


def logits_of(
    candidates: np.ndarray, features: np.ndarray, table: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """(n, K) logits by the weights `table` (L, 4) of each label, -inf where not `there`."""
    ids = np.maximum(candidates, 0)
    out = table[:, -1][ids]
    for f, x in enumerate(features):
        out = out + table[:, f][ids] * np.where(there, x, 0)
    if np.isnan(out).any():
        raise MufinError(
            f"{int(np.isnan(out).sum())} scores are not a number (NaN), so the vectors that they "
            "are computed from are broken; look at the training curve, lower the learning rate and "
            "train again"
        )
    return np.where(there, out, -np.inf)


def mixed_scores(popular: np.ndarray, rare: np.ndarray, share: float) -> np.ndarray:
    """(n, K) log of the mixed probabilities (1 - share) p_popular + share p_rare."""
    from scipy.special import logsumexp

    def log_p(logits: np.ndarray) -> np.ndarray:
        total = logsumexp(logits, axis=1, keepdims=True)
        return logits - np.where(np.isfinite(total), total, 0)

    return np.logaddexp(np.log1p(-share) + log_p(popular), np.log(share) + log_p(rare))


def usable(candidates: np.ndarray, excluded: Lists | None) -> np.ndarray:
    """(n, K) bool: false for missing candidates (-1) and filter pairs."""
    there = candidates >= 0
    return there if excluded is None else there & ~is_in(candidates, excluded)


def hats_of(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(x), knots) the hat functions: each is 1 at its knot, 0 at all others, linear between.

    They sum to 1. The first and the last stay 1 beyond the knots.
    """
    return np.stack([np.interp(x, knots, row) for row in np.eye(len(knots))], 1)
