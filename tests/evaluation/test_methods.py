"""The rows that every run reports, on small random cases."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import Curated, Split
from mufin.artifacts.embeddings import PretrainEmbeddings
from mufin.evaluation import methods
from mufin.evaluation.chosen import Chosen, choose, choose_by_folds
from mufin.evaluation.evaluator import Evaluator
from mufin.evaluation.methods import (
    BySplit,
    alpha_one,
    mixed_methods,
    module_one_rows,
    rankings,
    rare_and_popular,
    unseen_labels,
)
from mufin.evaluation.reference import reference_rows, train_pairs_row
from mufin.evaluation.scored import Block, Scored
from mufin.metrics import precision_at_k, recall_at_k
from mufin.ragged import Lists
from mufin.ranking.mix import Candidates, Mix, rank
from mufin.ranking.mix_choice import Fold, choose_on_folds
from mufin.ranking.title_ridge import TitleRidge

FIXED = Mix(0.3)
WEIGHTS = itertools.product((0.0, 0.5, 1.0), (0.0, 0.2), (0.0, 0.7), (0.0, 0.5))
SWEEP = [Mix(*weights) for weights in WEIGHTS]
CPU = torch.device("cpu")


def scored(n: int, labels: int = 30, k: int = 12, ridge: bool = True, seed: int = 0) -> Scored:
    """n datapoints with k random candidates each, and truth that the classifier half knows."""
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(labels)[:k] for _ in range(n)]).reshape(n, k)
    scores = [rng.normal(size=(n, k)).astype(np.float32) for _ in range(4)]
    truth = [row[rng.permutation(k)[:3]] for row in ids]
    for row, (found, true) in enumerate(zip(ids, truth)):
        scores[0][row, np.isin(found, true)] += 1
    excluded = [row[:1] for row in truth]
    split = Split(np.arange(n), Lists.of_rows(truth), Lists.of_rows(excluded))
    candidates = Candidates(ids, *scores[:2], scores[2] if ridge else None, scores[3])
    return of_arrays(split, candidates, rng.normal(size=(n, k)).astype(np.float32), 10**6)


def of_arrays(
    split: Split, candidates: Candidates, alpha_one: np.ndarray, per_block: int
) -> Scored:
    """The scores of a split, `per_block` datapoints at a time."""

    def make(rows: np.ndarray) -> Block:
        some = {
            name: None if (values := getattr(candidates, name)) is None else values[rows]
            for name in ("ids", "classifier", "similarity", "ridge", "votes", "pairs")
        }
        return Block(split.take(rows), Candidates(**some), lambda: alpha_one[rows])

    terms = {t for t in ("ridge", "votes", "pairs") if getattr(candidates, t) is not None}
    return Scored(split, make, per_block, frozenset(terms))


def whole(one: Scored) -> Block:
    """All datapoints of a split whose scores are held."""
    ((_, block),) = one.blocks()
    return block


def in_parts(one: Scored, per_block: int) -> Scored:
    """The same scores, which are not held."""
    block = whole(one)
    return of_arrays(one.split, block.candidates, block.alpha_one, per_block)


def frequency(labels: int = 30) -> np.ndarray:
    return np.log1p(np.arange(labels) % 7).astype(np.float32)


def merit(one: Scored, mix: Mix) -> float:
    """P@1 + P@5 + R@10 under `mix`, each to four digits."""
    labels, _ = rank(whole(one).candidates, mix, one.split.excluded, frequency(), 10)
    pair = (one.split.labels, one.split.excluded)
    figures = [precision_at_k(labels, pair[0], k, pair[1]) for k in (1, 5)]
    return sum(round(f, 4) for f in [*figures, recall_at_k(labels, pair[0], 10, pair[1])])


def test_without_valid_datapoints_the_fixed_mix_is_chosen():
    chosen = choose(scored(0), SWEEP, FIXED, frequency())
    assert chosen.fixed == chosen.chosen == FIXED
    assert chosen.without_ridge == replace(FIXED, ridge_weight=0.0)
    assert [Mix(m["beta"], m["frequency_weight"], m["ridge_weight"]) for m in chosen.tried] == [
        FIXED
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_best_mix_on_valid_is_chosen(seed):
    valid = scored(25, seed=seed)
    chosen = choose(valid, SWEEP, FIXED, frequency())
    merits = [merit(valid, mix) for mix in SWEEP]
    assert chosen.chosen == SWEEP[merits.index(max(merits))] and chosen.fixed == FIXED
    assert [sum(row[m] for m in ("P@1", "P@5", "R@10")) for row in chosen.tried] == (
        pytest.approx(merits)
    )
    alone = [mix for mix in SWEEP if not mix.ridge_weight]
    best = max(alone, key=lambda mix: merit(valid, mix))
    assert chosen.without_ridge == best


def test_without_a_ridge_no_second_mix_is_chosen():
    chosen = choose(scored(9, ridge=False), SWEEP, FIXED, frequency())
    assert chosen.without_ridge is None


def folds_of(*several: Scored) -> list[Fold]:
    return [
        Fold(whole(s).candidates, s.split.labels, s.split.excluded, frequency()) for s in several
    ]


def test_folds_choose_instead_of_valid():
    folds, valid = folds_of(scored(40, seed=1), scored(40, seed=2)), scored(9, seed=3)
    chosen = choose_by_folds(folds, valid, SWEEP, FIXED, frequency())
    choice = choose_on_folds(folds, SWEEP, FIXED)
    assert (chosen.chosen, chosen.tried, chosen.on) == (choice.mix, choice.tried, "folds")
    alone = [mix for mix in SWEEP if not mix.ridge_weight]
    own = [fold.without("ridge") for fold in folds]
    assert chosen.without_ridge == choose_on_folds(own, alone, FIXED).mix
    assert chosen.without_ridge.network_weight == 1 and chosen.without_pairs is None
    alone = [mix for mix in SWEEP if not mix.vote_weight]
    own = [fold.without("votes") for fold in folds]
    assert chosen.without_votes == choose_on_folds(own, alone, FIXED).mix


@pytest.mark.parametrize("per_block", [7, 10**6])
def test_the_weight_of_pairs_is_chosen_on_valid(per_block):
    """The pairs of valid name its truth, of which folds know nothing."""
    folds, valid = folds_of(scored(40, seed=1)), scored(30, seed=3)
    candidates = whole(valid).candidates
    pairs = np.zeros(candidates.ids.shape, np.float32)
    for row, true in enumerate(valid.split.labels[i] for i in range(30)):
        pairs[row, np.isin(candidates.ids[row], true)] = 1
    candidates = replace(candidates, pairs=pairs)
    valid = of_arrays(valid.split, candidates, whole(valid).alpha_one, per_block)
    sweep = [replace(mix, pair_weight=weight) for mix in SWEEP for weight in (0.0, 5.0)]
    chosen = choose_by_folds(folds, valid, sweep, FIXED, frequency())
    without = choose_on_folds(folds, SWEEP, FIXED).mix
    assert chosen.chosen == replace(without, pair_weight=5.0)
    assert chosen.without_pairs == without


def found_by(both: dict[str, Scored], all_methods: dict) -> dict[str, BySplit]:
    return dict(rankings(both, all_methods))


def test_the_ridge_alone_leaves_the_network_to_rows_without_it():
    both, alone = {"test": scored(6)}, Mix(0.5, ridge_weight=1.0, network_weight=0.0)
    rows = {name: alpha_one(mix, frequency(), 8) for name, mix in (("a", alone), ("b", Mix(0.5)))}
    found = found_by(both, rows)
    assert all(map(np.array_equal, found["a"]["test"], found["b"]["test"]))


def test_mixed_rows_are_the_rankings_of_their_mixes():
    both = {"valid": scored(5, seed=1), "test": scored(6, seed=2)}
    chosen = Chosen(FIXED, SWEEP[7], SWEEP[4], SWEEP[2], None, [])
    rows = found_by(both, mixed_methods(chosen, frequency(), 8))
    assert list(rows) == [
        "mufin",
        "mufin_chosen",
        "mufin_without_ridge",
        "mufin_without_votes",
    ]
    for name, mix in zip(rows, (FIXED, SWEEP[7], SWEEP[4], SWEEP[2])):
        for split_name, one in both.items():
            slow = rank(whole(one).candidates, mix, one.split.excluded, frequency(), 8)
            assert all(map(np.array_equal, rows[name][split_name], slow))
    assert "mufin_without_ridge" not in mixed_methods(
        replace(chosen, without_ridge=None), frequency(), 8
    )


def test_the_alpha_one_row_has_no_ridge_and_no_votes():
    one, mix = scored(6), Mix(0.5, 0.2, 0.7, 0.3)
    labels, values = found_by({"test": one}, {"a": alpha_one(mix, frequency(), 8)})["a"]["test"]
    block = whole(one)
    candidates = Candidates(block.candidates.ids, block.alpha_one, block.candidates.similarity)
    slow = rank(candidates, replace(mix, ridge_weight=0.0), one.split.excluded, frequency(), 8)
    assert np.array_equal(labels, slow[0]) and np.array_equal(values, slow[1])


def every_row(valid: Scored, test: Scored) -> tuple[Chosen, dict[str, BySplit], dict]:
    """What a run makes of the scores of both splits."""
    chosen = choose(valid, SWEEP, FIXED, frequency())
    index = SimpleNamespace(frequency=np.arange(30) % 7, log_frequency=frequency())
    evaluator = Evaluator({}, index.frequency, 90, (0.6, 2.6), 3)
    all_methods = mixed_methods(chosen, frequency(), 8)
    all_methods["alpha_1"] = alpha_one(chosen.chosen, frequency(), 8)
    all_methods["rare"], learnt = rare_and_popular(
        SimpleNamespace(index=index), valid, evaluator, 0.7, 8
    )
    return chosen, found_by({"valid": valid, "test": test}, all_methods), learnt


@pytest.mark.parametrize("per_block", [1, 7, 39])
def test_blocks_of_datapoints_give_the_rows_of_all_at_once(per_block):
    valid, test = scored(40, seed=1), scored(23, seed=2)
    wanted = every_row(valid, test)
    found = every_row(in_parts(valid, per_block), in_parts(test, per_block))
    assert found[0] == wanted[0] and found[2] == wanted[2]
    assert list(found[1]) == list(wanted[1]) and "rare" in found[1]
    for row, by_split in wanted[1].items():
        for name, ranking in by_split.items():
            assert all(map(np.array_equal, found[1][row][name], ranking)), (row, name)


def test_held_scores_are_computed_once():
    one = scored(6)
    every_row(one, one)
    assert one.held and one.made == 6 and one.seconds > 0
    parts = in_parts(one, 4)
    every_row(parts, parts)
    assert not parts.held and parts.made > 6


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def module_one(seed: int, labels: int = 14, dim: int = 6) -> tuple[Curated, PretrainEmbeddings]:
    """Random embeddings of labels with 1 to 3 bag rows, and of the datapoints of each split."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, labels)
    sizes = {"train": 20, "valid": 5, "test": 7}
    truth = {n: [rng.permutation(labels)[:2] for _ in range(size)] for n, size in sizes.items()}
    splits = {
        n: Split(np.arange(sizes[n]), Lists.of_rows(t), Lists.of_rows([row[:1] for row in t]))
        for n, t in truth.items()
    }
    vectors = {n: unit(rng.normal(size=(size, dim))) for n, size in sizes.items()}
    embeddings = PretrainEmbeddings(
        unit(rng.normal(size=(counts.sum(), dim))),
        np.concatenate([[0], np.cumsum(counts)]),
        unit(rng.normal(size=(labels, dim))),
        rng.normal(size=(labels, dim)).astype(np.float32),
        **vectors,
    )
    return Curated(np.arange(labels), splits), embeddings


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k, width", [(14, 20), (5, 3)])
def test_module_one_rows_equal_a_slow_loop(seed, k, width):
    data, e = module_one(seed)
    found = dict(module_one_rows(data, e, k, CPU, 0, width))
    assert list(found) == ["module_1_bag", "module_1_vec"]
    for split_name in ("valid", "test"):
        split = data.splits[split_name]
        for name in found:
            labels, values = found[name][split_name]
            assert labels.shape == values.shape == (len(split), width)
            for row, x in enumerate(e.datapoints(split_name)):
                scores = slow_scores(x, e, bags=name == "module_1_bag")
                allowed = [label for label in data.labels if label not in split.excluded[row]]
                order = sorted(allowed, key=lambda label: (-scores[label], label))
                order = order[: min(k, width)]
                assert labels[row].tolist() == order + [-1] * (width - len(order))
                np.testing.assert_allclose(values[row, : len(order)], scores[order], atol=1e-6)


def slow_scores(x: np.ndarray, e: PretrainEmbeddings, bags: bool) -> np.ndarray:
    """(L,) the similarity of the best row of each label: bag rows and centroid, or z^1."""
    if not bags:
        return np.array([x @ z for z in e.label_vectors])
    out = []
    for label, mu in enumerate(e.centroids):
        rows = e.label_rows[e.label_offsets[label] : e.label_offsets[label + 1]]
        out.append(max([x @ row for row in rows] + [x @ mu / np.linalg.norm(mu)]))
    return np.array(out)


def test_no_unseen_labels_or_datapoints_give_no_figures():
    none, one = np.zeros(0, np.int64), np.array([3])
    empty = Split(none, Lists.of_rows([]), Lists.of_rows([]))
    asked = Split(one, Lists.of_rows([[0]]), Lists.of_rows([[]]))
    for unseen, split in ((none, asked), (one, empty)):
        assert unseen_labels(None, unseen, split, 10, 0.5, 10) == {}


def test_parts_name_modalities_that_exist():
    assert methods.PARTS == {"text_only": {0, 2}, "image_only": {1}}


# Reference rows

WORDS = [f"word{i}" for i in range(40)]


def catalog(seed: int = 0, labels: int = 12) -> tuple[np.ndarray, Split, Split]:
    """Titles of 30 products; products 20 to 29, asked, have the titles of 10 to 19, in train."""
    rng = np.random.default_rng(seed)
    titles = [" ".join(rng.permutation(WORDS)[:6]) for _ in range(20)]
    titles = np.array(titles + titles[10:], dtype=object)
    truth = [rng.permutation(labels)[:3] for _ in range(20)]
    asked = Lists.of_rows([row[:1] for row in truth[10:]])  # filter pairs: one of the twin's
    train = Split(np.arange(20), Lists.of_rows(truth), Lists.of_rows([[]] * 20))
    return titles, train, Split(np.arange(20, 30), Lists.of_rows(truth[10:]), asked)


def test_the_popular_row_is_by_train_frequency():
    titles, train, split = catalog()
    labels, _ = dict(reference_rows(train, split, titles, 12, None, 20, CPU))["popular"]
    counts = np.bincount(train.labels.values, minlength=12)
    for row, found in enumerate(labels):
        allowed = [label for label in range(12) if label not in split.excluded[row]]
        order = sorted(allowed, key=lambda label: (-counts[label], label))
        assert found.tolist() == order + [-1] * (20 - len(order))


def test_the_tfidf_row_begins_with_the_twins_labels():
    """Where no other title shares a word."""
    _, train, split = catalog()
    titles = np.array([f"one{p} two{p}" for p in [*range(20), *range(10, 20)]], dtype=object)
    labels, _ = dict(reference_rows(train, split, titles, 12, None, 10, CPU))["tfidf_datapoints"]
    for row, found in enumerate(labels):
        twin = set(train.labels[10 + row].tolist()) - set(split.excluded[row].tolist())
        assert set(found[:2].tolist()) == twin
        assert not set(found.tolist()) & set(split.excluded[row].tolist())
    rows = [row for row, _ in reference_rows(train, split, titles, 12, None, 10, CPU, tfidf=False)]
    assert rows == ["popular"]


def test_the_ridge_row_is_the_order_of_its_scores():
    titles, train, split = catalog()
    known = titles[train.product].tolist()
    ridge = TitleRidge.fit(known, train.labels, 12, 1.0)
    rows = dict(reference_rows(train, split, titles, 12, ridge, 12, CPU))
    assert set(rows) == {"popular", "tfidf_datapoints", "ridge"}
    scores = ridge.scores(titles[split.product].tolist())
    for row, (labels, values) in enumerate(zip(*rows["ridge"])):
        allowed = [label for label in range(12) if label not in split.excluded[row]]
        order = sorted(allowed, key=lambda label: (-scores[row, label], label))
        assert labels[: len(order)].tolist() == order
        np.testing.assert_array_equal(values[: len(order)], scores[row, order].astype(np.float32))
    assert "ridge" not in dict(reference_rows(train, split, titles, 12, None, 12, CPU))


def test_the_train_pairs_row_repeats_what_train_knew():
    """Products 0 and 2 are in train, product 9 is not."""
    labels = Lists.of_rows([[0, 1, 3], [3], [2, 3]])
    weights = np.float32([0.2, 1, 0.5, 1, 0.5, 1])
    train = Split(np.array([0, 1, 2]), labels, Lists.of_rows([[]] * 3), weights)
    asked = Split(np.array([2, 9, 0]), Lists.of_rows([[0]] * 3), Lists.of_rows([[], [3], [1]]))
    data = Curated(np.arange(5), {"train": train, "test": asked})
    found, _ = train_pairs_row(data, "test", 5)
    assert found.tolist() == [[3, 2, 0, 1, 4], [0, 1, 2, 4, -1], [3, 0, 2, 4, -1]]
    plain = Curated(
        data.labels, {**data.splits, "train": Split(train.product, labels, train.excluded)}
    )
    assert train_pairs_row(plain, "test", 2)[0].tolist() == [[2, 3], [0, 1], [0, 3]]
