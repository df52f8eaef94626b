"""Rare and popular labels scored differently: the variant that MUFIN wishes for (Limitations and Future Work).

Two softmaxes over a datapoint's candidates, one learnt for popular labels and one for rare ones, are mixed as
probabilities: p = (1 - g) p_popular + g p_rare. What the first is sure of keeps the first places; what it leaves open,
the second fills with rare labels. Each has logits u_c(n) c + u_1(n) c1 + u_a(n) a + b(n) of the classifier score c, that
of the alpha = 1 variant c1 and the retrieval similarity a, with weights that change with the label's frequency n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from mufin.errors import MufinError
from mufin.metrics import precision_at_k, recall_of_labels
from mufin.ragged import Lists, is_in
from mufin.ranking.order import CHUNK, top

FEATURES = ("c", "c1", "a")  # the order of `features`, everywhere here
QUANTILES = (
    0.1,
    0.5,
    0.9,
)  # knots: the frequency of rare, middling and popular labels of valid's pairs
EXPERTS = {"popular": 0.0, "rare": 3.0}  # a pair weighs inverse propensity ** this
SHRINKAGE = 0.1  # L2 towards MUFIN's weights, in logits a standard deviation
SHARES = tuple(round(0.05 * i, 2) for i in range(1, 20))  # g
FOLDS = 5
CELLS = 2**21  # candidates that a fit looks at: its few weights need no more


@dataclass(frozen=True, slots=True)
class PopularityMix:
    """Weights at each knot of log(1 + n), linear between knots and constant beyond; one expert (MUFIN) or two."""

    knots: np.ndarray  # (knots,) ascending
    weights: np.ndarray  # (experts, knots, 4): of c, c1, a and 1
    share: float  # g, of the second expert

    def scores(
        self,
        candidates: np.ndarray,
        features: np.ndarray,
        frequency: np.ndarray,
        excluded: Lists | None = None,
    ) -> np.ndarray:
        """(n, K) float64 log p (one expert: its logits); -inf for candidates -1 and filter pairs.

        `features` (3, n, K), `frequency` (L,) log(1 + n). Raises MufinError on a score that is NaN.
        """
        out = np.empty(candidates.shape)
        step = max(1, CHUNK // max(candidates.shape[1], 1))
        for start in range(0, len(candidates), step):
            rows = np.arange(start, min(start + step, len(candidates)))
            there = _there(candidates[rows], None if excluded is None else excluded.take(rows))
            logits = [
                _logits(
                    candidates[rows], features[:, rows], _hats(self.knots, frequency) @ w, there
                )
                for w in self.weights
            ]
            out[rows] = logits[0] if len(logits) == 1 else _mixed(*logits, self.share)
        return out

    def readable(self) -> dict:
        """The weights for rare and for popular labels, for metrics."""
        names = [*FEATURES, "1"]
        return {
            "rare_share": self.share,
            "weights": [
                {"train_datapoints": round(float(np.expm1(knot)), 1)}
                | {
                    expert: dict(zip(names, np.round(w[k], 3).tolist()))
                    for expert, w in zip(EXPERTS, self.weights)
                }
                for k, knot in enumerate(self.knots)
            ],
        }


def fixed_mix(beta: float) -> PopularityMix:
    """MUFIN's own beta c + (1 - beta) a, whatever the frequency."""
    return PopularityMix(np.zeros(1), np.array([[[beta, 0.0, 1 - beta, 0.0]]]), 0.0)


def fit(
    candidates: np.ndarray,
    features: np.ndarray,
    frequency: np.ndarray,
    truth: Lists,
    excluded: Lists,
    inverse_propensity: np.ndarray,
    tail: np.ndarray,
    beta: float,
) -> tuple[PopularityMix, np.ndarray, list[dict]]:
    """The mix learnt on valid, valid's scores (n, K) out of fold, and what each share of the rare expert gave there.

    The share has the best R@10 of the labels `tail`, out of fold, of those whose P@1 and P@5 are above those of MUFIN's
    fixed `beta` by a standard error of the difference (or, where none is, not below them); the score is MUFIN's own
    where none of them has a better R@10 of `tail` than MUFIN, or valid is too small. `inverse_propensity` (L,).
    """
    fixed, truth = fixed_mix(beta), truth.minus(excluded)
    n, there = len(candidates), _there(candidates, excluded)
    own = fixed.scores(candidates, features, frequency, excluded)
    if n < FOLDS or not is_in(candidates, truth).any():
        return fixed, own, []
    knots = np.unique(np.quantile(frequency[truth.values], QUANTILES))
    held_out, parts = np.arange(n) % FOLDS, np.empty((len(EXPERTS), *candidates.shape))

    def learnt(rows: np.ndarray) -> np.ndarray:
        return _experts(
            knots,
            candidates[rows],
            features[:, rows],
            frequency,
            truth.take(rows),
            there[rows],
            inverse_propensity,
            beta,
        )

    for fold in range(FOLDS):
        test = np.flatnonzero(held_out == fold)
        for e, w in enumerate(learnt(np.flatnonzero(held_out != fold))):
            parts[e, test] = _logits(
                candidates[test], features[:, test], _hats(knots, frequency) @ w, there[test]
            )
    share, table = _best_share(candidates, parts, own, truth, tail)
    if share is None:
        return fixed, own, table
    return PopularityMix(knots, learnt(np.arange(n)), share), _mixed(*parts, share), table


def _best_share(
    candidates: np.ndarray, parts: np.ndarray, own: np.ndarray, truth: Lists, tail: np.ndarray
) -> tuple[float | None, list[dict]]:
    """The share by the rule of `fit`, None for MUFIN's own score; and the table, MUFIN's own first."""
    table, hits = [], []
    for share in (None, *SHARES):
        score = own if share is None else _mixed(*parts, share)
        ranked, _ = top(candidates, score, None, 10)
        found = is_in(ranked[:, :5], truth)
        hits.append([found[:, 0], found.mean(1)])
        table.append(
            {
                "rare_share": share,
                "P@1": round(precision_at_k(ranked, truth, 1), 4),
                "P@5": round(precision_at_k(ranked, truth, 5), 4),
                "tail R@10": round(recall_of_labels(ranked, truth, None, tail, 10), 4),
            }
        )
    gain = np.array(hits, float) - hits[0]
    error = gain.std(2) / np.sqrt(len(candidates))
    for errors in (1, 0):
        good = (gain.mean(2) >= errors * error).all(1)
        best = max((row for row, ok in zip(table, good) if ok), key=lambda row: row["tail R@10"])
        if best["tail R@10"] > table[0]["tail R@10"]:
            return best["rare_share"], table
    return None, table


def _experts(
    knots: np.ndarray,
    candidates: np.ndarray,
    features: np.ndarray,
    frequency: np.ndarray,
    truth: Lists,
    there: np.ndarray,
    inverse_propensity: np.ndarray,
    beta: float,
) -> np.ndarray:
    """(experts, knots, 4) weights, each expert fitted to pairs weighed by its own power of inverse propensity."""
    rows = np.arange(0, len(candidates), -(-candidates.size // CELLS))
    ids, there, truth = candidates[rows], there[rows], truth.take(rows)
    x = np.where(there, features[:, rows], 0)
    parts = np.concatenate([x, there[None].astype(float)])
    design = np.einsum("nkh,fnk->nkhf", _hats(knots, frequency)[np.maximum(ids, 0)], parts).reshape(
        *ids.shape, -1
    )
    spread = np.array([f[there].std() for f in x])
    spread = np.append(np.where(spread > 1e-6, spread, 1), 1)
    positive = is_in(ids, truth) & there
    out = []
    for power in EXPERTS.values():
        weight = np.where(positive, inverse_propensity[np.maximum(ids, 0)] ** power, 0)
        weight *= positive.sum() / max(weight.sum(), 1e-12)
        out.append(
            _fitted(
                design,
                positive,
                there,
                weight,
                np.tile([beta, 0, 1 - beta, 0], len(knots)),
                np.tile(spread, len(knots)),
            ).reshape(len(knots), -1)
        )
    return np.stack(out)


def _fitted(
    design: np.ndarray,
    positive: np.ndarray,
    there: np.ndarray,
    weight: np.ndarray,
    own: np.ndarray,
    spread: np.ndarray,
) -> np.ndarray:
    """(P,) weights of the least loss, drawn to MUFIN's `own` (P,) at the temperature that suits it best.

    Weights of features stay >= 0: a better match never lowers a label.
    """
    score, n = (design @ own)[..., None], len(design)
    heat = minimize(
        lambda t: _loss(t, score, positive, there, weight),
        [10.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.1, 1000.0)],
    ).x[0]

    def objective(move: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _loss(heat * own + move / spread, design, positive, there, weight)
        return value / n + SHRINKAGE * (move**2).sum(), slope / spread / n + 2 * SHRINKAGE * move

    bias = np.arange(len(own)) % (len(FEATURES) + 1) == len(FEATURES)
    lowest = np.where(bias, -np.inf, -heat * own * spread)
    found = minimize(
        objective,
        np.zeros(len(own)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, None) for low in lowest],
        options={"maxiter": 200},
    )
    return heat * own + found.x / spread


def _loss(
    w: np.ndarray, design: np.ndarray, positive: np.ndarray, there: np.ndarray, weight: np.ndarray
) -> tuple[float, np.ndarray]:
    """Sum over positives of weight x -log softmax of the positive among it and all negatives; and its gradient (P,)."""
    s = np.where(there, design @ w, -np.inf)
    top = np.where(there.any(1), s.max(1, initial=-np.inf), 0)[:, None]
    e = np.exp(s - top)
    all_of_it = np.maximum((e * ~positive).sum(1, keepdims=True) + e, 1e-300)
    value = (weight * (np.log(all_of_it) + top - np.where(positive, s, 0)))[positive].sum()
    pull = np.where(positive, weight / all_of_it, 0).sum(1, keepdims=True)
    slope = np.where(positive, weight * (e / all_of_it - 1), e * pull)
    return float(value), np.einsum("nk,nkp->p", slope, design)


def _logits(
    candidates: np.ndarray, features: np.ndarray, table: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """(n, K) of `table` (L, 4), -inf where not `there`."""
    ids = np.maximum(candidates, 0)
    out = table[:, -1][ids]
    for f, x in enumerate(features):
        out = out + table[:, f][ids] * np.where(there, x, 0)
    if np.isnan(out).any():
        raise MufinError(
            f"{int(np.isnan(out).sum())} scores are not a number (NaN); the vectors they come from are "
            "broken: look at the training curve, lower the learning rate and train again"
        )
    return np.where(there, out, -np.inf)


def _mixed(popular: np.ndarray, rare: np.ndarray, share: float) -> np.ndarray:
    """(n, K) log of the mixed probabilities."""

    def log_p(logits: np.ndarray) -> np.ndarray:
        total = logsumexp(logits, axis=1, keepdims=True)
        return logits - np.where(np.isfinite(total), total, 0)

    return np.logaddexp(np.log1p(-share) + log_p(popular), np.log(share) + log_p(rare))


def _there(candidates: np.ndarray, excluded: Lists | None) -> np.ndarray:
    """(n, K) bool: a label, and no filter pair."""
    return (candidates >= 0) & (True if excluded is None else ~is_in(candidates, excluded))


def _hats(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(x), knots): piecewise-linear parts of one, each with its peak at its knot."""
    return np.stack([np.interp(x, knots, row) for row in np.eye(len(knots))], 1)
