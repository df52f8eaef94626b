"""The mixes of scores that a run reports, chosen on valid or on folds of train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mufin.evaluation.scored import Block, Scored, in_blocks
from mufin.ranking.mix import Mix, merit, rank
from mufin.ranking.mix_choice import Fold, choose_on_folds


@dataclass(frozen=True, slots=True)
class Chosen:
    """The mixes of scores that a run reports."""

    fixed: Mix  # evaluate.beta only: the paper's score
    chosen: Mix  # the best of the sweep on valid, or what the folds choose
    without_ridge: Mix | None  # the best without a title ridge, None if there is no ridge
    without_votes: Mix | None  # the best without votes of train datapoints, None if there are none
    without_pairs: Mix | None  # the best without pairs of train, None if valid has none of them
    tried: list[dict]  # weights and figures of each mix in the sweep
    on: str = "valid"  # where the mixes were tried: valid or folds


def choose(valid: Scored, sweep: list[Mix], fixed: Mix, log_frequency: np.ndarray) -> Chosen:
    """The best mixes of `sweep` on valid; `fixed` if there are no valid datapoints."""
    if not len(valid.split):
        sweep = [fixed]
    if "pairs" not in valid.terms:  # no weight of them makes a difference
        sweep = list(dict.fromkeys(replace(mix, pair_weight=0.0) for mix in sweep))
    tried = _Tried(valid, log_frequency)
    best = tried.best(sweep)

    def best_without(there: bool, **term: float) -> Mix | None:
        return tried.best([replace(mix, **term) for mix in sweep]) if there else None

    return Chosen(
        fixed,
        best,
        best_without("ridge" in valid.terms, ridge_weight=0.0),
        best_without("votes" in valid.terms, vote_weight=0.0),
        best_without(best.pair_weight > 0, pair_weight=0.0),
        [mix.weights() | tried.figures[mix] for mix in sweep],
    )


class _Tried:
    """The figures of mixes on valid, each computed once."""

    def __init__(self, valid: Scored, log_frequency: np.ndarray):
        self.valid, self.log_frequency = valid, log_frequency
        self.figures: dict[Mix, dict[str, float]] = {}

    def best(self, mixes: list[Mix]) -> Mix:
        """The mix with the largest P@1 + P@5 + R@10, the first of equals."""
        new = {mix: self._job(mix) for mix in mixes if mix not in self.figures}
        split = self.valid.split
        for mix, (labels,) in in_blocks(self.valid, new):
            self.figures[mix] = merit(labels, split.labels, split.excluded)
        return max(mixes, key=lambda mix: sum(self.figures[mix].values()))

    def _job(self, mix: Mix) -> Callable[[np.ndarray, Block], tuple[np.ndarray, ...]]:
        def ten_best(rows: np.ndarray, block: Block) -> tuple[np.ndarray, ...]:
            labels, _ = rank(block.candidates, mix, block.split.excluded, self.log_frequency, 10)
            return (labels.astype(np.int32),)

        return ten_best


def choose_by_folds(
    folds: list[Fold], valid: Scored, sweep: list[Mix], fixed: Mix, log_frequency: np.ndarray
) -> Chosen:
    """The best mixes of `sweep` on `folds` of train.

    A left-out product has no pairs in train, so folds tell nothing of `pair_weight`. It is chosen
    on valid, for the mix of the folds, where valid has products of train (`curate.split: time`).
    """
    alone = list(dict.fromkeys(replace(mix, pair_weight=0.0) for mix in sweep))
    choice = choose_on_folds(folds, alone, fixed)
    best = choice.mix

    def best_without(part: Literal["ridge", "votes"], **term: float) -> Mix | None:
        if part not in valid.terms:
            return None
        mixes = list(dict.fromkeys(replace(mix, **term) for mix in alone))
        return choose_on_folds([f.without(part) for f in folds], mixes, fixed).mix

    if "pairs" in valid.terms:
        weights = dict.fromkeys([0.0, *(mix.pair_weight for mix in sweep)])
        pairs = [replace(best, pair_weight=weight) for weight in weights]
        best = _Tried(valid, log_frequency).best(pairs)
    return Chosen(
        fixed,
        best,
        best_without("ridge", ridge_weight=0.0),
        best_without("votes", vote_weight=0.0),
        choice.mix if best.pair_weight > 0 else None,
        choice.tried,
        "folds",
    )
