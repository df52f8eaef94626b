"""The mix chosen on folds: against slow loops, and never behind a part alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.out_of_fold import OutOfFold
from mufin.ragged import Lists
from mufin.ranking.mix import Candidates, Mix, merit, rank
from mufin.ranking.mix_choice import (
    MERIT,
    NEAR,
    Fold,
    _central,
    choose_on_folds,
    mean_and_error,
    out_of_fold_metrics,
    paired,
    parts_alone,
    pooled,
)
from tests.ranking.test_mix import MIXES, problem, slow_rank, truth_of

PLAIN = Mix(0.7)


def fold(n: int, seed: int, k: int = 12) -> Fold:
    candidates, excluded, frequency = problem(n, k, seed)
    return Fold(candidates, truth_of(n, seed), excluded, frequency)


def total(folds: list[Fold], mix: Mix) -> float:
    """P@1 + P@5 + R@10 of all datapoints, one after the other."""
    sums = []
    for f in folds:
        ranked, _ = slow_rank(f.candidates, mix, f.excluded, f.log_frequency, 100)
        if mix.network_weight == 0:
            alone = replace(
                f.candidates,
                classifier=mix.ridge_weight * f.candidates.ridge
                + mix.vote_weight * f.candidates.votes,
                similarity=np.zeros_like(f.candidates.similarity),
            )
            ranked, _ = slow_rank(alone, Mix(1.0), f.excluded, None, 100)
        for i, labels in enumerate(ranked):
            truth = set(f.truth[i].tolist()) - set(f.excluded[i].tolist())
            hits = [label in truth for label in labels]
            sums.append(
                100 * sum(hits[:1]) + 20 * sum(hits[:5]) + 100 * sum(hits[:10]) / max(len(truth), 1)
            )
    return sum(sums) / len(sums)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 9999))
def test_pooled_merits_are_those_of_a_loop(sizes, seed):
    folds = [fold(n, seed + i) for i, n in enumerate(sizes)]
    for mix in (PLAIN, Mix(0.5, 0.25, 1.0), *parts_alone(True, True).values()):
        figures = pooled(folds, mix)
        found = sum(float(figures[name].mean()) for name in MERIT)
        assert found == pytest.approx(total(folds, mix), abs=1e-9)


def test_pooled_figures_of_one_fold_are_the_metrics():
    f = fold(50, 1)
    figures = pooled([f], Mix(0.5, 0.25, 1.0))
    labels, _ = rank(f.candidates, Mix(0.5, 0.25, 1.0), f.excluded, f.log_frequency, 100)
    expected = merit(labels, f.truth, f.excluded)
    assert {name: round(float(figures[name].mean()), 4) for name in MERIT} == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.booleans(),
    st.lists(st.sampled_from(MIXES), max_size=6),
    st.integers(0, 9999),
)
def test_the_choice_is_never_behind_a_part_alone_or_plain(sizes, ridge, mixes, seed):
    folds = [fold(n, seed + i) for i, n in enumerate(sizes)]
    if not ridge:
        folds = [f.without("ridge") for f in folds]
    choice = choose_on_folds(folds, mixes, PLAIN)
    merits = {
        mix: sum(float(pooled(folds, mix)[name].mean()) for name in MERIT)
        for mix in (PLAIN, choice.mix, *parts_alone(ridge, True).values(), *mixes)
    }
    for mix in (PLAIN, *parts_alone(ridge, True).values()):
        assert merits[choice.mix] >= merits[mix] - 1e-9
    if choice.mix != PLAIN:  # near the best
        each = {m: sum(pooled(folds, m)[name] for name in MERIT) for m in merits}
        best = max(each, key=lambda m: each[m].mean())
        lead, error = paired(each[best], each[choice.mix])
        assert lead <= NEAR * error + 1e-9


def answers(first: list[bool], second: list[bool]) -> Fold:
    """A fold in which the classifier finds the answer where `first`, the similarity where `second`
    says so."""
    n = len(first)
    c = np.tile([0.0, 0.5, 0.2], (n, 1)).astype(np.float32)
    a = c.copy()
    c[:, 0], a[:, 0] = np.where(first, 1.0, -1.0), np.where(second, 1.0, -1.0)
    candidates = Candidates(np.tile([3, 1, 2], (n, 1)), c, a)
    truth = Lists(np.arange(n + 1), np.full(n, 3))
    return Fold(candidates, truth, Lists(np.zeros(n + 1, np.int64), truth.values[:0]), np.zeros(4))


def test_a_level_sweep_keeps_the_plain_mix():
    level = answers([True, False] * 20, [True, False] * 20)
    assert choose_on_folds([level], [Mix(0.5), Mix(0.2)], PLAIN).mix == PLAIN


def test_a_mix_with_a_clear_lead_is_chosen():
    clear = answers([False] * 20, [True] * 20)
    choice = choose_on_folds([clear], [Mix(0.5), Mix(0.2)], PLAIN)
    assert choice.mix == Mix(0.0)  # the similarity alone, first of equals
    assert [row["lead"] > 0 for row in choice.tried] == [False, False, True, False, True]
    assert choice.tried[0]["lead"] == choice.tried[0]["standard_error"] == 0


def test_a_lead_within_its_error_keeps_the_plain_mix():
    """One datapoint of forty, which no part alone wins."""
    f = answers([True] * 40, [True] * 40)
    ids = f.candidates.ids.copy()
    lucky = replace(f, candidates=replace(f.candidates, ids=ids))
    ids[0] = [1, 3, 2]  # the true label has 0.5 by classifier and similarity
    frequency = np.array([0, 0, 0, 10.0])
    lucky = replace(lucky, log_frequency=frequency)
    mix = Mix(0.7, 0.1)
    choice = choose_on_folds([lucky], [mix], PLAIN)
    row = next(row for row in choice.tried if row["frequency_weight"] == 0.1)
    assert 0 < row["lead"] <= row["standard_error"] + 1e-9
    assert choice.mix == PLAIN


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(0, 9999))
def test_the_central_mix_is_that_of_a_loop(n, seed):
    rng = np.random.default_rng(seed)
    options = [*MIXES, parts_alone(True, True)["ridge"], parts_alone(True, True)["votes"]]
    merits = rng.integers(0, 4, (len(options), n)) * 20.0
    best = max(range(len(options)), key=lambda i: merits[i].sum())
    near = []
    for i, mix in enumerate(options):
        gaps = [float(a - b) for a, b in zip(merits[best], merits[i])]
        mean = sum(gaps) / n
        error = (sum((gap - mean) ** 2 for gap in gaps) / (n - 1)) ** 0.5 / n**0.5
        if mean <= NEAR * error + 1e-9 and mix.network_weight:
            near.append(i)
    found = _central(options, merits)
    if not near:
        assert found == best
        return
    fields = ("beta", "frequency_weight", "ridge_weight", "vote_weight")
    distances = dict.fromkeys(near, 0.0)
    for field in fields:
        values = [getattr(mix, field) for mix in options]
        spread = np.std(values)
        middle = np.mean([values[i] for i in near])
        for i in near:
            distances[i] += ((values[i] - middle) / spread) ** 2
    assert distances[found] == pytest.approx(min(distances.values()))


def test_the_middle_of_level_mixes_is_chosen():
    """From 0.25 to 1 the ridge weight makes no difference, and all of these beat the plain mix."""
    n = 40
    c = np.tile([0.0, 0.1], (n, 1)).astype(np.float32)
    r = np.tile([0.9, 0.0], (n, 1)).astype(np.float32)
    candidates = Candidates(np.tile([0, 1], (n, 1)), c, c, r)
    truth = Lists(np.arange(n + 1), np.zeros(n, np.int64))
    f = Fold(candidates, truth, Lists(np.zeros(n + 1, np.int64), truth.values[:0]), np.zeros(2))
    mixes = [Mix(0.7, 0.0, weight) for weight in (0.25, 0.5, 0.6, 0.75, 1.0)]
    assert choose_on_folds([f], mixes, PLAIN).mix.ridge_weight == 0.6


def test_no_datapoints_keep_the_plain_mix():
    nothing = fold(0, 0)
    assert choose_on_folds([], MIXES, PLAIN).mix == PLAIN
    assert choose_on_folds([nothing], MIXES, PLAIN).mix == PLAIN
    assert out_of_fold_metrics([nothing], PLAIN, PLAIN) == {"folds": 0, "datapoints": 0}


def test_one_datapoint_has_no_finite_error():
    assert paired(np.array([3.0]), np.array([1.0])) == (2.0, float("inf"))
    assert mean_and_error({"P@1": np.array([100.0])}) == ({"P@1": 100.0}, {"P@1": 0.0})


def test_metrics_have_each_part_with_its_error():
    folds = [fold(30, 1), fold(20, 2)]
    told = out_of_fold_metrics(folds, PLAIN, Mix(0.5, 0.25, 1.0))
    names = ["plain", "chosen", "classifier", "similarity", "ridge", "votes"]
    assert list(told) == ["folds", "datapoints", *names, "standard_errors"]
    assert told["folds"] == 2 and told["datapoints"] == 50
    first = pooled(folds, Mix(1.0, 0.0, 1.0, network_weight=0.0))["P@1"]
    assert told["ridge"]["P@1"] == pytest.approx(first.mean(), abs=1e-4)
    error = first.std(ddof=1) / np.sqrt(50)
    assert told["standard_errors"]["ridge"]["P@1"] == pytest.approx(error, abs=1e-4)
    assert set(told["plain"]) == {"P@1", "P@5", "R@10", "R@100"}


def test_the_ridge_alone_does_not_read_the_network():
    f = fold(20, 4)
    broken = replace(
        f.candidates,
        classifier=np.full_like(f.candidates.classifier, np.nan),
        similarity=np.full_like(f.candidates.similarity, np.nan),
    )
    alone = parts_alone(True, False)["ridge"]
    labels, scores = rank(broken, alone, f.excluded, f.log_frequency, 5)
    by_ridge = Candidates(f.candidates.ids, f.candidates.ridge, f.candidates.ridge)
    expected, _ = rank(by_ridge, Mix(1.0), f.excluded, None, 5)
    assert (labels == expected).all()


def test_a_fold_of_the_artifact_is_padded_with_its_frequencies():
    scores = OutOfFold(
        np.array([4, 2]),
        Lists.of_rows([[3, 0], [5]]),
        {"classifier": np.float32([1, 2, 3]), "similarity": np.float32([4, 5, 6])},
        Lists.of_rows([[0], [5]]),
        Lists.of_rows([[], [1]]),
        np.array([1, 0, 0, 2, 0, 5]),
    )
    f = Fold.of(scores)
    assert f.candidates.ids.tolist() == [[3, 0], [5, -1]]
    assert f.candidates.similarity[:, 0].tolist() == [4, 6] and f.candidates.ridge is None
    assert np.allclose(f.log_frequency, np.log1p(scores.counts))
    labels, _ = rank(f.candidates, Mix(1.0), f.excluded, f.log_frequency, 3)
    assert labels.tolist() == [[0, 3, -1], [5, -1, -1]]
