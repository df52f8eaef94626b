"""The mix chosen on out-of-fold scores of all train datapoints (`evaluate.mix: cross_validated`).

A validation split of a small catalog has a hundred datapoints, on which the best of many mixes is
often the luckiest. The out-of-fold scores have all train datapoints, which is ten times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mufin.artifacts.out_of_fold import OutOfFold
from mufin.metrics import filtered
from mufin.ragged import Lists, is_in
from mufin.ranking.mix import Candidates, Mix, rank

PRECISION_AT, RECALL_AT = (1, 5), (10, 100)
MERIT = ("P@1", "P@5", "R@10")  # whose sum decides
NEAR = 0.25  # standard errors
LEVEL = 1e-9  # a smaller difference of merits is rounding
Figures = dict[str, np.ndarray]  # metric: (n,) of each datapoint, in percent


@dataclass(frozen=True, slots=True)
class Fold:
    """The left-out datapoints of a fold as `rank` needs them."""

    candidates: Candidates
    truth: Lists
    excluded: Lists
    log_frequency: np.ndarray  # (L,) float32, log(1 + train datapoints of the label in the fold)

    @classmethod
    def of(cls, scores: OutOfFold) -> Fold:
        """The fold of what `data/folds` holds of it."""
        padded = {
            name: Lists(scores.candidates.offsets, values).padded()
            for name, values in scores.scores.items()
        }
        ids = scores.candidates.padded().astype(np.int64)
        frequency = np.log1p(scores.counts).astype(np.float32)
        return cls(Candidates(ids, **padded), scores.truth, scores.excluded, frequency)

    def without(self, part: Literal["ridge", "votes"]) -> Fold:
        """The same without the scores of the title ridge, or without the votes."""
        c = self.candidates
        less = replace(c, ridge=None) if part == "ridge" else replace(c, votes=None)
        return replace(self, candidates=less)

    def figures(self, mix: Mix, width: int = 100) -> Figures:
        """P@1, P@5, R@10 and R@100 of each left-out datapoint by `mix`, in percent.

        With a `width` below 100 predictions are no longer than that.
        """
        labels, _ = rank(self.candidates, mix, self.excluded, self.log_frequency, width)
        labels, truth = filtered(labels, self.truth, self.excluded)
        hits = is_in(labels, truth)
        out = {f"P@{k}": 100 * hits[:, :k].sum(1) / k for k in PRECISION_AT}
        size = np.maximum(truth.lengths(), 1)
        return out | {f"R@{k}": 100 * hits[:, :k].sum(1) / size for k in RECALL_AT}


@dataclass(frozen=True, slots=True)
class MixChoice:
    """A mix, and the figures by which it was chosen."""

    mix: Mix
    # per mix: its weights, P@1, P@5, R@10, its `lead` in their sum over the plain mix, and the
    # `standard_error` of the lead
    tried: list[dict[str, float]]


def parts_alone(ridge: bool, votes: bool) -> dict[str, Mix]:
    """The mixes in which one part ranks alone, with or without a title ridge and votes."""
    parts = {"classifier": Mix(1.0), "similarity": Mix(0.0)}
    if ridge:
        parts["ridge"] = Mix(1.0, ridge_weight=1.0, network_weight=0.0)
    if votes:
        parts["votes"] = Mix(1.0, vote_weight=1.0, network_weight=0.0)
    return parts


def _have(folds: Sequence[Fold], part: str) -> bool:
    return all(getattr(fold.candidates, part) is not None for fold in folds)


def choose_on_folds(folds: Sequence[Fold], mixes: Sequence[Mix], plain: Mix) -> MixChoice:
    """The best of `mixes`, `plain` and each part alone, by P@1 + P@5 + R@10 over all folds.

    `plain`, the mix of the paper, stays if it is level with all others: none leads it by more than
    the standard error of the paired difference over datapoints, and no part alone leads it at all.
    Else the mix is chosen that is central among the best (`_central`); if a part alone leads that
    one, the best. So on the out-of-fold scores the chosen mix is at least as good as `plain` and as
    each part alone, on any catalog.

    The standard errors treat datapoints as independent. The networks of a fold are single members,
    so with several members the network is slightly better than it is here. Without any datapoint
    the plain mix is chosen.
    """
    folds = [fold for fold in folds if len(fold.truth)]
    if not folds:
        return MixChoice(plain, [])
    parts = list(parts_alone(_have(folds, "ridge"), _have(folds, "votes")).values())
    options = list(dict.fromkeys([plain, *parts, *mixes]))
    figures = [pooled(folds, mix, width=10) for mix in options]
    merits = np.stack([np.sum([each[name] for name in MERIT], 0) for each in figures])
    leads = [paired(merit, merits[0]) for merit in merits]
    tried = [
        mix.weights()
        | {name: round(float(each[name].mean()), 4) for name in MERIT}
        | {"lead": round(lead, 4), "standard_error": round(error, 4)}
        for mix, each, (lead, error) in zip(options, figures, leads)
    ]
    chosen = _chosen(options, merits, [options.index(part) for part in parts])
    return MixChoice(options[chosen], tried)


def _chosen(options: Sequence[Mix], merits: np.ndarray, parts: Sequence[int]) -> int:
    """The number of the chosen option; `merits` (options, n), the plain mix first."""
    leads = [paired(merit, merits[0]) for merit in merits]
    clear = any(lead > error + LEVEL for lead, error in leads)
    beaten = any(leads[part][0] > LEVEL for part in parts)
    if not clear and not beaten:
        return 0
    central = _central(options, merits)
    if all(leads[other][0] <= leads[central][0] + LEVEL for other in (0, *parts)):
        return central
    return int(np.argmax([lead for lead, _ in leads]))


def _central(options: Sequence[Mix], merits: np.ndarray) -> int:
    """Of the mixes that cannot be told from the best, the one nearest to the mean of their weights.

    These are at most `NEAR` standard errors of the paired difference behind the best. Their mean is
    less a matter of luck than the best itself. On the out-of-fold scores of a real catalog, a mix
    chosen so on some of the datapoints had a larger merit on the others than the best had: by 0.3
    with 60 datapoints, 0.2 with 150 and 1,300, and never a smaller one. To go back to the simplest
    mix within one error, as is often done, was worse than the best at every size.
    """
    best = int(np.argmax(merits.mean(1)))
    behind = [paired(merits[best], merit) for merit in merits]
    near = [i for i, (lead, error) in enumerate(behind) if lead <= NEAR * error + LEVEL]
    near = [i for i in near if options[i].network_weight] or [best]
    weights = np.array(
        [(m.beta, m.frequency_weight, m.ridge_weight, m.vote_weight) for m in options]
    )
    spread = weights.std(0)
    scaled = weights / np.where(spread > 0, spread, 1)
    distance = ((scaled[near] - scaled[near].mean(0)) ** 2).sum(1)
    return near[int(np.argmin(distance))]


def pooled(folds: Sequence[Fold], mix: Mix, width: int = 100) -> Figures:
    """The figures of the left-out datapoints of all folds, one fold after the other."""
    each = [fold.figures(mix, width) for fold in folds]
    return {name: np.concatenate([figures[name] for figures in each]) for name in each[0]}


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The mean of a - b, (n,) each, and its standard error; infinite for one datapoint."""
    gain = a - b
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float("inf")
    return float(gain.mean()), error


def out_of_fold_metrics(folds: Sequence[Fold], plain: Mix, chosen: Mix) -> dict:
    """What `metrics/folds.json` holds: figures of the two mixes and of each part alone.

    P@1, P@5, R@10 and R@100 in percent over all left-out datapoints, with their standard errors.
    """
    folds = [fold for fold in folds if len(fold.truth)]
    out: dict = {"folds": len(folds), "datapoints": sum(len(fold.truth) for fold in folds)}
    if not folds:
        return out
    parts, errors = parts_alone(_have(folds, "ridge"), _have(folds, "votes")), {}
    for name, mix in ({"plain": plain, "chosen": chosen} | parts).items():
        out[name], errors[name] = mean_and_error(pooled(folds, mix))
    return out | {"standard_errors": errors}


def mean_and_error(figures: Figures) -> tuple[dict[str, float], dict[str, float]]:
    """The mean of each metric and its standard error over datapoints, to four decimals."""
    means, errors = {}, {}
    for name, values in figures.items():
        mean, error = paired(values, np.zeros(len(values)))
        means[name] = round(mean, 4)
        errors[name] = round(error, 4) if np.isfinite(error) else 0.0
    return means, errors
