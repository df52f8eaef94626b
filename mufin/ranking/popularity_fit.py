"""The popularity mix, learnt on the datapoints of valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mufin.metrics import precision_at_k, recall_of_labels
from mufin.ragged import Lists, is_in
from mufin.ranking.order import top
from mufin.ranking.popularity_mix import (
    EXPERTS,
    FEATURES,
    PopularityMix,
    fixed_mix,
    hats_of,
    logits_of,
    mixed_scores,
    own_weights,
    usable,
)

QUANTILES = (0.1, 0.5, 0.9)  # knots: frequency of rare, middling and popular labels on valid
SHARES = tuple(round(0.05 * i, 2) for i in range(1, 20))  # values of g that are tried
SHRINKAGE = 0.1  # of the penalty on the squared distance from MUFIN's weights, see `_fitted`
FOLDS = 5
CELLS = 2**21  # candidates that a fit uses at most; a dozen weights do not need more


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What the fit needs to know of the L labels."""

    frequency: np.ndarray  # (L,) log(1 + n)
    inverse_propensity: np.ndarray  # (L,)
    tail: np.ndarray  # ids of the tail labels


@dataclass(frozen=True, slots=True)
class Learnt:
    """What `fit` learns on valid."""

    mix: PopularityMix
    without: list[PopularityMix]  # learnt without each of the FOLDS folds of valid
    table: list[dict]  # the figures per share

    def out_of_fold(
        self,
        rows: np.ndarray,
        candidates: np.ndarray,
        features: np.ndarray,
        frequency: np.ndarray,
        excluded: Lists,
    ) -> np.ndarray:
        """(n, K) scores of the datapoints `rows` (n,) of valid, by mixes learnt without them.

        The other arguments are as in `PopularityMix.scores`.
        """
        out = np.empty(candidates.shape)
        for fold, mix in enumerate(self.without):
            at = np.flatnonzero(rows % FOLDS == fold)
            own = excluded.take(at)
            out[at] = mix.scores(candidates[at], features[:, at], frequency, own)
        return out


def fit(
    scores_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    per_block: int,
    truth: Lists,
    excluded: Lists,
    labels: LabelFacts,
    beta: float,
) -> Learnt:
    """The mix learnt on valid, and the mixes learnt without each of its folds.

    `scores_of(rows)` returns candidates and features of these datapoints of valid, as in
    `PopularityMix.scores`; `per_block` are asked for at once. The share g of the rare expert is
    chosen by figures out of fold. It is the one with the best R@10 of tail labels, among those with
    P@1 and P@5 above MUFIN's by a standard error of the difference. If none of these finds more
    tail labels than MUFIN, it is chosen among those whose P@1 and P@5 are not below MUFIN's. If
    none of these does either, or valid is too small, the mix is MUFIN's own score with `beta`.
    """
    own, n = fixed_mix(beta), len(truth)
    unchanged = Learnt(own, [own] * FOLDS, [])
    valid = _Valid(scores_of, per_block, truth.minus(excluded), excluded)
    if n < FOLDS or not valid.finds_truth(own, labels):
        return unchanged
    knots = np.unique(np.quantile(labels.frequency[valid.truth.values], QUANTILES))
    number = np.arange(n) % FOLDS
    experts = [
        _experts(valid, np.flatnonzero(number != fold), knots, labels, beta)
        for fold in range(FOLDS)
    ]
    ranked = _ranked(valid, [PopularityMix(knots, w, 0.0) for w in experts], own, labels)
    share, table = _best_share(ranked, valid.truth, labels.tail)
    if share is None:
        return Learnt(own, [own] * FOLDS, table)
    mix = PopularityMix(knots, _experts(valid, np.arange(n), knots, labels, beta), share)
    return Learnt(mix, [PopularityMix(knots, w, share) for w in experts], table)


@dataclass(frozen=True, slots=True)
class _Some:
    """Datapoints of valid that a fit learns from."""

    ids: np.ndarray  # (n, K) candidates
    features: np.ndarray  # (3, n, K)
    there: np.ndarray  # (n, K) bool, false for missing candidates and filter pairs
    truth: Lists


@dataclass(frozen=True, slots=True)
class _Valid:
    """All datapoints of valid; scores are asked for as they are needed."""

    scores_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    per_block: int
    truth: Lists  # without the filter pairs
    excluded: Lists

    def take(self, rows: np.ndarray) -> _Some:
        ids, features = self.scores_of(rows)
        return _Some(ids, features, usable(ids, self.excluded.take(rows)), self.truth.take(rows))

    def blocks(self) -> Iterator[tuple[np.ndarray, _Some]]:
        """The numbers of the datapoints of each block, and the block."""
        n = len(self.truth)
        for start in range(0, n, self.per_block):
            rows = np.arange(start, min(start + self.per_block, n))
            yield rows, self.take(rows)

    def finds_truth(self, own: PopularityMix, labels: LabelFacts) -> bool:
        """Whether any candidate is true. Raises MufinError if a score before it is NaN."""
        for rows, some in self.blocks():
            own.scores(some.ids, some.features, labels.frequency, self.excluded.take(rows))
            if is_in(some.ids, some.truth).any():
                return True
        return False


def _ranked(
    valid: _Valid, without: list[PopularityMix], own: PopularityMix, labels: LabelFacts
) -> list[np.ndarray]:
    """The ten best labels (n, 10) of valid by MUFIN's `own` score, then by each of SHARES.

    `without` are the experts learnt without each fold.
    """
    parts: list[list[np.ndarray]] = [[] for _ in (None, *SHARES)]
    tables = [[hats_of(m.knots, labels.frequency) @ w for w in m.weights] for m in without]
    for rows, some in valid.blocks():
        excluded = valid.excluded.take(rows)
        scores = own.scores(some.ids, some.features, labels.frequency, excluded)
        parts[0].append(top(some.ids, scores, None, 10)[0])
        logits = np.empty((len(EXPERTS), *some.ids.shape))
        for fold, of_experts in enumerate(tables):
            at = np.flatnonzero(rows % FOLDS == fold)
            for expert, table in enumerate(of_experts):
                x, there = some.features[:, at], some.there[at]
                logits[expert, at] = logits_of(some.ids[at], x, table, there)
        for ranked, share in zip(parts[1:], SHARES):
            scores = mixed_scores(logits[0], logits[1], share)
            ranked.append(top(some.ids, scores, None, 10)[0])
    return [np.concatenate(several) for several in parts]


def _best_share(
    ranked: list[np.ndarray], truth: Lists, tail: np.ndarray
) -> tuple[float | None, list[dict]]:
    """The share by the rule of `fit`, None for MUFIN's own score, and the figures of each share.

    `ranked` are the ten best labels (n, 10) by MUFIN's own score, then by each of SHARES.
    """
    shares: tuple[float | None, ...] = (None, *SHARES)
    table, hits, tail_recall = [], [], []
    for share, labels in zip(shares, ranked):
        found = is_in(labels[:, :5], truth)
        hits.append([found[:, 0], found.mean(1)])  # P@1 and P@5 of each datapoint
        tail_recall.append(round(recall_of_labels(labels, truth, None, tail, 10), 4))
        table.append(
            {
                "rare_share": share,
                "P@1": round(precision_at_k(labels, truth, 1), 4),
                "P@5": round(precision_at_k(labels, truth, 5), 4),
                "tail R@10": tail_recall[-1],
            }
        )
    gain = np.array(hits, float) - hits[0]  # (shares, 2, n), over MUFIN's own score
    error = gain.std(2) / np.sqrt(len(truth))
    for errors in (1, 0):
        good = (gain.mean(2) >= errors * error).all(1)  # true for MUFIN's own score itself
        best = max(np.flatnonzero(good).tolist(), key=lambda i: tail_recall[i])
        if tail_recall[best] > tail_recall[0]:
            return shares[best], table
    return None, table


def _experts(
    valid: _Valid, rows: np.ndarray, knots: np.ndarray, labels: LabelFacts, beta: float
) -> np.ndarray:
    """(experts, knots, 4) weights, each expert fitted to pairs weighted by inverse propensity.

    They are fitted on the datapoints `rows` of valid, or on as many of them as have CELLS
    candidates.
    """
    width = valid.scores_of(rows[:1])[0].shape[1]
    some = valid.take(rows[:: -(-len(rows) * width // CELLS)])
    ids, there = some.ids, some.there
    # Design: each feature times each hat function of the label's frequency, (n, K, knots x 4). So
    # the weights at the knots are those of a linear model.
    x = np.where(there, some.features, 0)
    parts = np.concatenate([x, there[None].astype(float)])
    hats = hats_of(knots, labels.frequency)[np.maximum(ids, 0)]
    design = np.einsum("nkh,fnk->nkhf", hats, parts).reshape(*ids.shape, -1)
    spread = np.array([f[there].std() for f in x])
    spread = np.append(np.where(spread > 1e-6, spread, 1), 1)
    own, spread = np.tile(own_weights(beta), len(knots)), np.tile(spread, len(knots))
    positive = is_in(ids, some.truth) & there
    out = []
    for power in EXPERTS.values():
        rarity = labels.inverse_propensity[np.maximum(ids, 0)] ** power
        weight = np.where(positive, rarity, 0)
        weight *= positive.sum() / max(weight.sum(), 1e-12)  # one per pair on average
        fitted = _fitted(design, positive, there, weight, own, spread)
        out.append(fitted.reshape(len(knots), -1))
    return np.stack(out)


def _fitted(
    design: np.ndarray,
    positive: np.ndarray,
    there: np.ndarray,
    weight: np.ndarray,
    own: np.ndarray,
    spread: np.ndarray,
) -> np.ndarray:
    """(P,) weights that minimise the loss plus a penalty on their distance from MUFIN's `own` (P,).

    The distance is from `own` times the inverse temperature that fits best, as the softmax depends
    on it and MUFIN's ranking does not. Weights of features stay >= 0, so that a better match never
    lowers a label.
    """
    from scipy.optimize import minimize

    score, n = (design @ own)[..., None], len(design)
    heat = minimize(  # the inverse temperature
        lambda t: _loss(t, score, positive, there, weight),
        [10.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.1, 1000.0)],
    ).x[0]

    def objective(move: np.ndarray) -> tuple[float, np.ndarray]:
        # In units of logits per standard deviation, so that one penalty suits all features.
        value, slope = _loss(heat * own + move / spread, design, positive, there, weight)
        return value / n + SHRINKAGE * (move**2).sum(), slope / spread / n + 2 * SHRINKAGE * move

    bias = np.arange(len(own)) % (len(FEATURES) + 1) == len(FEATURES)
    lowest = np.where(bias, -np.inf, -heat * own * spread)  # where a weight becomes 0
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
    """The weighted sum of -log softmax over positives, and its gradient (P,).

    The softmax of a positive is over itself and all negatives of its datapoint, without the other
    positives.
    """
    s = np.where(there, design @ w, -np.inf)
    # Subtract the largest score of each row, so that exp cannot overflow.
    top = np.where(there.any(1), s.max(1, initial=-np.inf), 0)[:, None]
    e = np.exp(s - top)
    total = np.maximum((e * ~positive).sum(1, keepdims=True) + e, 1e-300)  # for each positive
    value = (weight * (np.log(total) + top - np.where(positive, s, 0)))[positive].sum()
    # d/ds: e / total - 1 at the positive itself, e / total of every positive at a negative.
    pull = np.where(positive, weight / total, 0).sum(1, keepdims=True)
    slope = np.where(positive, weight * (e / total - 1), e * pull)
    return float(value), np.einsum("nk,nkp->p", slope, design)
