"""Rare and popular labels scored differently: what is learnt, and when MUFIN's own score stays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from mufin.errors import MufinError
from mufin.metrics import inverse_propensity, precision_at_k, recall_of_labels
from mufin.ragged import Lists
from mufin.ranking import popularity_fit, popularity_mix
from mufin.ranking.order import top
from mufin.ranking.popularity_fit import LabelFacts, _loss, fit
from mufin.ranking.popularity_mix import PopularityMix, fixed_mix, hats_of, mixed_scores

LABELS, TAIL, NONE = 60, 5, Lists.of_rows([[]] * 150)


def problem(seed: int, rare_by: int | None = 1, n: int = 150):
    """Candidates, (c, c1, a), train datapoints per label, and truth. Popular labels are found by c,
    rare ones by feature `rare_by` (None: by c as well; c1 and a are then noise)."""
    rng = np.random.default_rng(seed)
    counts = np.where(
        np.arange(LABELS) < 30, rng.integers(0, TAIL, LABELS), rng.integers(20, 60, LABELS)
    )
    candidates = np.stack([rng.permutation(LABELS) for _ in range(n)])
    truth = Lists.of_rows(
        [
            np.sort(
                np.concatenate(
                    [rng.choice(30, 2, replace=False), 30 + rng.choice(30, 2, replace=False)]
                )
            )
            for _ in range(n)
        ]
    )
    right = np.stack([np.isin(row, truth[i]) for i, row in enumerate(candidates)])
    rare, features = counts[candidates] < TAIL, 0.3 * rng.normal(size=(3, n, LABELS))
    features[0] += 0.5 * (right & (~rare | (rare_by is None))) - 0.5 * rare * (rare_by is not None)
    if rare_by is not None:
        features[rare_by] += 0.5 * (right & rare)
    return candidates, features, counts, truth


def facts(counts) -> LabelFacts:
    return LabelFacts(
        np.log1p(counts),
        inverse_propensity(counts, 500, 0.6, 2.6),
        np.flatnonzero(counts < TAIL),
    )


def learnt(candidates, features, counts, truth, excluded=NONE, beta=0.7, per_block=10**6):
    """The mix, the out-of-fold scores of all datapoints, and the figures per share."""

    def scores_of(rows):
        return candidates[rows], features[:, rows]

    found = fit(scores_of, per_block, truth, excluded, facts(counts), beta)
    rows = np.arange(len(candidates))
    scores = found.out_of_fold(rows, candidates, features, np.log1p(counts), excluded)
    return found.mix, scores, found.table


def figures(candidates, scores, counts, truth) -> tuple[float, float]:
    """P@1 and R@10 of the tail."""
    ranked, _ = top(candidates, scores, None, 10)
    return precision_at_k(ranked, truth, 1), recall_of_labels(
        ranked, truth, None, np.flatnonzero(counts < TAIL), 10
    )


def test_the_mix_finds_more_rare_labels_than_mufin():
    """And than c and c1 by themselves, where c finds popular and c1 rare labels; its P@1 is not
    below MUFIN's."""
    mix, _, _ = learnt(*problem(0))
    candidates, features, counts, truth = problem(1)
    own = figures(candidates, 0.7 * features[0] + 0.3 * features[2], counts, truth)
    alone = [figures(candidates, f, counts, truth) for f in features[:2]]
    first, tail = figures(
        candidates, mix.scores(candidates, features, np.log1p(counts)), counts, truth
    )
    assert first >= max(own[0], alone[1][0])
    assert tail > 5 + max(own[1], *(f[1] for f in alone)), (own, alone, first, tail)


def test_out_of_fold_figures_are_near_new_datas():
    candidates, features, counts, truth = problem(0)
    mix, out_of_fold, table = learnt(candidates, features, counts, truth)
    valid = figures(candidates, out_of_fold, counts, truth)
    new = problem(2)
    test = figures(new[0], mix.scores(new[0], new[1], np.log1p(new[2])), new[2], new[3])
    assert np.abs(np.subtract(valid, test)).max() < 8
    row = next(r for r in table if r["rare_share"] == mix.share)
    assert (row["P@1"], row["tail R@10"]) == pytest.approx(valid, abs=1e-3)


def test_useless_features_leave_the_order_of_c():
    """Among labels of like frequency."""
    candidates, features, counts, truth = problem(3, rare_by=None, n=400)
    features[1:] *= 0.1
    weights = learnt(candidates, features, counts, truth, Lists.of_rows([[]] * 400))[0].weights
    spread = features.std((1, 2))
    moved = weights[..., :3] * spread
    assert (
        moved[..., 1:] < 0.2 * moved[..., :1]
    ).all()  # what a feature can change, compared with c


def test_weights_of_features_are_never_negative():
    candidates, features, counts, truth = problem(4)
    features[1] *= -1  # the better the match, the lower: not to be learnt
    mix, _, _ = learnt(candidates, features, counts, truth)
    assert (mix.weights[..., :3] > -1e-9).all() and (mix.weights[..., 1] < 1e-9).any()


def slow_share(candidates, parts, own, truth, tail) -> float | None:
    """The rule in words: the best tail R@10 of those whose P@1 and P@5 are above MUFIN's by a
    standard error, else of those not below."""

    def found(score, labels, k):
        return [
            np.isin(row[np.argsort(-s, kind="stable")[:k]], labels[i]).sum()
            for i, (row, s) in enumerate(zip(candidates, score))
        ]

    rare = [np.intersect1d(truth[i], tail) for i in range(len(truth))]
    some = [i for i, r in enumerate(rare) if len(r)]
    rows = [(None, own)] + [(g, mixed_scores(*parts, g)) for g in popularity_fit.SHARES]
    hits = {
        g: (
            np.array(found(s, truth, 1)),
            np.array(found(s, truth, 5)) / 5,
            np.mean([found(s, rare, 10)[i] / len(rare[i]) for i in some]),
        )
        for g, s in rows
    }
    for errors in (1, 0):
        good = [
            g
            for g, h in hits.items()
            if all(
                (h[k] - hits[None][k]).mean()
                >= errors * (h[k] - hits[None][k]).std() / np.sqrt(len(candidates))
                for k in (0, 1)
            )
        ]
        best = max(good, key=lambda g: hits[g][2])
        if hits[best][2] > hits[None][2]:
            return best
    return None


def test_the_share_is_that_of_the_rule_in_words():
    chosen, kinds = set(), set()
    for seed in range(15):
        rng = np.random.default_rng(seed)
        candidates, truth = (
            np.stack([rng.permutation(20) for _ in range(12)]),
            Lists.of_rows([rng.choice(20, 3, replace=False) for _ in range(12)]),
        )
        right = np.stack([np.isin(row, truth[i]) for i, row in enumerate(candidates)])
        popular, rare = rng.normal(size=(2, 12, 20)) + np.multiply.outer(
            [1.0, 2.0], right & (candidates % 2 > 0)
        )
        own, tail = rng.normal(size=(12, 20)) + rng.uniform(0.5, 2) * right, np.arange(1, 20, 2)
        scores = [own, *(mixed_scores(popular, rare, g) for g in popularity_fit.SHARES)]
        ranked = [top(candidates, each, None, 10)[0] for each in scores]
        share, table = popularity_fit._best_share(ranked, truth, tail)
        assert share == slow_share(candidates, (popular, rare), own, truth, tail)
        chosen.add(share)
        kinds.add(
            share is None
            or next(r for r in table if r["rare_share"] == share)["P@1"] > table[0]["P@1"]
        )
    assert len(chosen) > 3 and None in chosen and kinds == {True, False}


def slow_loss(w, design, positive, there, weight) -> float:
    total = 0.0
    for i, j in np.argwhere(positive):
        among = [
            design[i, k] @ w
            for k in range(design.shape[1])
            if there[i, k] and (k == j or not positive[i, k])
        ]
        total += weight[i, j] * (np.log(np.exp(among).sum()) - design[i, j] @ w)
    return total


def test_the_loss_and_its_gradient_are_a_loops():
    rng = np.random.default_rng(5)
    design, there = rng.normal(size=(6, 9, 4)), rng.random((6, 9)) < 0.8
    there[2] = False
    positive = there & (rng.random((6, 9)) < 0.3)
    positive[3] = there[3]  # no negatives at all
    weight = np.where(positive, rng.random((6, 9)) * 3, 0)
    for _ in range(5):
        w = rng.normal(size=4)
        assert _loss(w, design, positive, there, weight)[0] == pytest.approx(
            slow_loss(w, design, positive, there, weight)
        )
        assert (
            check_grad(
                *(lambda v, i=i: _loss(v, design, positive, there, weight)[i] for i in (0, 1)), w
            )
            < 1e-5
        )


def test_scores_are_those_of_a_slow_loop():
    rng = np.random.default_rng(6)
    knots, weights, frequency = (
        np.array([0.5, 1.0, 2.5]),
        rng.random((2, 3, 4)),
        rng.uniform(0, 3, 12),
    )
    candidates, features = (
        np.stack([rng.permutation(12)[:5] for _ in range(4)]),
        rng.normal(size=(3, 4, 5)),
    )
    candidates[1, 2] = -1
    excluded = Lists.of_rows([[candidates[0, 1]], [], [], candidates[3]])
    found = PopularityMix(knots, weights, 0.3).scores(candidates, features, frequency, excluded)
    for i in range(4):
        keep = [
            k for k in range(5) if candidates[i, k] >= 0 and candidates[i, k] not in excluded[i]
        ]
        p = np.zeros(5)
        for w, share in zip(weights, (0.7, 0.3)):
            u = [
                [np.interp(frequency[candidates[i, k]], knots, w[:, f]) for f in range(4)]
                for k in keep
            ]
            logits = np.array(
                [
                    sum(a * b for a, b in zip(row, [*features[:, i, k], 1]))
                    for row, k in zip(u, keep)
                ]
            )
            p[keep] += share * np.exp(logits) / np.exp(logits).sum()
        assert np.exp(found[i]) == pytest.approx(p)
        assert (found[i] == -np.inf).tolist() == [k not in keep for k in range(5)]


def test_scores_in_chunks_are_the_scores_at_once(monkeypatch):
    candidates, features, counts, truth = problem(7)
    mix, _, _ = learnt(candidates, features, counts, truth)
    whole = mix.scores(candidates, features, np.log1p(counts), NONE)
    monkeypatch.setattr(popularity_mix, "CHUNK", 7 * LABELS)
    assert (mix.scores(candidates, features, np.log1p(counts), NONE) == whole).all()


def test_missing_candidates_and_filter_pairs_are_not_learnt():
    candidates, features, counts, truth = problem(8)
    mix, out_of_fold, table = learnt(candidates, features, counts, truth)
    rng = np.random.default_rng(9)
    n, extra = (
        len(candidates),
        LABELS + np.arange(3),
    )  # labels of their own, all of them filter pairs
    more = np.concatenate([candidates, np.full((n, 2), -1), np.tile(extra, (n, 1))], 1)
    noise = 5 * rng.normal(size=(3, n, 5))
    noise[:, :, :2] = np.nan  # scores of missing candidates are not read
    wide = np.concatenate([features, noise], 2)
    excluded = Lists.of_rows([extra] * n)
    true = Lists.of_rows([np.append(truth[i], extra) for i in range(n)])
    found = fit(
        lambda rows: (more[rows], wide[:, rows]),
        10**6,
        true,
        excluded,
        LabelFacts(
            np.log1p(np.append(counts, [1, 1, 1])),
            inverse_propensity(np.append(counts, [1, 1, 1]), 500, 0.6, 2.6),
            np.flatnonzero(counts < TAIL),
        ),
        0.7,
    )
    same, again = found.mix, found.table
    frequency = np.log1p(np.append(counts, [1, 1, 1]))
    scores = found.out_of_fold(np.arange(n), more, wide, frequency, excluded)
    assert same.share == mix.share and again == table
    assert same.weights == pytest.approx(mix.weights, abs=1e-6) and same.knots == pytest.approx(
        mix.knots
    )
    assert (
        scores[:, :LABELS] == pytest.approx(out_of_fold, abs=1e-6)
        and (scores[:, LABELS:] == -np.inf).all()
    )


@pytest.mark.parametrize("rows", [0, 3])
def test_too_small_a_valid_leaves_mufins_own_score(rows):
    candidates, features, counts, truth = problem(10)
    few = np.arange(rows)
    mix, scores, table = learnt(
        candidates[few], features[:, few], counts, truth.take(few), NONE.take(few), beta=0.6
    )
    assert table == [] and scores.shape == (rows, LABELS)
    own = 0.6 * features[0] + 0.4 * features[2]
    assert mix.scores(candidates, features, np.log1p(counts)) == pytest.approx(own)


def test_a_valid_without_truth_leaves_mufins_own_score():
    candidates, features, counts, _ = problem(11)
    mix, _, _ = learnt(candidates, features, counts, Lists.of_rows([[]] * 150))
    assert mix.readable() == fixed_mix(0.7).readable()


def test_where_nothing_helps_the_tail_mufins_own_score_stays():
    candidates, features, counts, truth = problem(12)
    truth = truth.only(counts[truth.values] >= TAIL)  # no rare label is ever right
    mix, scores, table = learnt(candidates, features, counts, truth)
    assert len(table) > 1 and mix.readable() == fixed_mix(0.7).readable()
    assert scores == pytest.approx(0.7 * features[0] + 0.3 * features[2])


def test_two_fits_are_the_same_to_the_bit():
    first, second = learnt(*problem(13)), learnt(*problem(13))
    assert (
        (first[0].weights == second[0].weights).all()
        and (first[1] == second[1]).all()
        and first[2] == second[2]
    )


def test_blocks_of_datapoints_learn_the_same_to_the_bit():
    whole, blocks = learnt(*problem(13)), learnt(*problem(13), per_block=7)
    assert (whole[0].weights == blocks[0].weights).all() and whole[0].share == blocks[0].share
    assert (whole[1] == blocks[1]).all() and whole[2] == blocks[2]


@pytest.mark.parametrize("feature", [0, 1, 2])
def test_a_score_that_is_nan_is_one_sentence(feature):
    candidates, features, counts, truth = problem(14)
    mix, _, _ = learnt(candidates, features, counts, truth)
    features[feature, 3, 4] = np.nan
    with pytest.raises(MufinError, match="1 scores are not a number"):
        learnt(candidates, features, counts, truth)
    with pytest.raises(MufinError, match="1 scores are not a number"):
        mix.scores(candidates, features, np.log1p(counts))


def test_mixed_probabilities_sum_to_one():
    """But in a row without candidates, which has none."""
    rng = np.random.default_rng(15)
    a, b = rng.normal(size=(2, 3, 6))
    a[:, 0] = b[:, 0] = -np.inf
    a[2] = b[2] = -np.inf
    p = np.exp(mixed_scores(a, b, 0.4))
    assert p.sum(1) == pytest.approx([1, 1, 0])
    assert (np.diff(hats_of(np.array([0.0, 1.0, 2.0]), np.linspace(-1, 3, 9)).sum(1)) == 0).all()
