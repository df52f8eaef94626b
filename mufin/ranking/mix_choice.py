"""The mix chosen on out-of-fold scores of all train datapoints (`evaluate.mix: cross_validated`).

A validation split of a small catalog has a hundred datapoints, on which the best of many mixes is
often the luckiest. The out-of-fold scores have all train datapoints, which is ten times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mufin.artifacts.out_of_fold import OutOfFold
from mufin.metrics import filtered
from mufin.ragged import Lists, is_in
from mufin.ranking.mix import Candidates, Mix, rank

PRECISION_AT, RECALL_AT = (1, 5), (10, 100)
MERIT = ("P@1", "P@5", "R@10")  # whose sum decides
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

    def without_ridge(self) -> Fold:
        """The same without scores of the title ridge."""
        return replace(self, candidates=replace(self.candidates, ridge=None))

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


def parts_alone(ridge: bool) -> dict[str, Mix]:
    """The mixes in which one part ranks alone; `ridge` says whether there is a title ridge."""
    parts = {"classifier": Mix(1.0), "similarity": Mix(0.0)}
    if ridge:
        parts["ridge"] = Mix(1.0, ridge_weight=1.0, network_weight=0.0)
    return parts


def choose_on_folds(folds: Sequence[Fold], mixes: Sequence[Mix], plain: Mix) -> MixChoice:
    """The best of `mixes`, `plain` and each part alone, by P@1 + P@5 + R@10 over all folds.

    `plain`, the mix of the paper, stays only if it is level with all others: none leads it by more
    than the standard error of the paired difference over datapoints, and no part alone leads it at
    all. Else the best is chosen, the first of equals. So on the out-of-fold scores, the chosen mix
    is at least as good as each part alone, on any catalog. A rule that always goes back to the
    simplest mix within one standard error of the best would lose nearly that error each time; here
    the many mixes are close relatives, so the best of them is hardly luckier than its neighbours.

    The standard errors treat datapoints as independent. Networks of a fold are single members, so
    the network is slightly better in the predictor of several members than it is here.
    Without any datapoint the plain mix is chosen.
    """
    folds = [fold for fold in folds if len(fold.truth)]
    if not folds:
        return MixChoice(plain, [])
    ridge = all(fold.candidates.ridge is not None for fold in folds)
    parts = list(parts_alone(ridge).values())
    options = list(dict.fromkeys([plain, *parts, *mixes]))
    figures = [pooled(folds, mix, width=10) for mix in options]
    merits = np.stack([sum(each[name] for name in MERIT) for each in figures])  # (mixes, n)
    leads = [paired(merit, merits[0]) for merit in merits]
    tried = [
        mix.weights()
        | {name: round(float(each[name].mean()), 4) for name in MERIT}
        | {"lead": round(lead, 4), "standard_error": round(error, 4)}
        for mix, each, (lead, error) in zip(options, figures, leads)
    ]
    clear = any(lead > error + 1e-9 for lead, error in leads)
    beaten = any(leads[options.index(part)][0] > 1e-9 for part in parts)
    best = int(np.argmax([lead for lead, _ in leads])) if clear or beaten else 0
    return MixChoice(options[best], tried)


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
    ridge = all(fold.candidates.ridge is not None for fold in folds)
    errors = {}
    for name, mix in ({"plain": plain, "chosen": chosen} | parts_alone(ridge)).items():
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
