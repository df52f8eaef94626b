"""Blanks filled and outfits judged, against slow forms: one pair of products after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mufin.artifacts.outfits import Compatibility, Outfits, OutfitSets, Questions
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import TEXT
from mufin.corpus.united import united
from mufin.errors import MufinError
from mufin.evaluation.outfits import (
    accuracy,
    compatibility,
    fill,
    outfit_figures,
    separation,
    without_each,
)
from mufin.ragged import Lists
from mufin.ranking.predictor import Predictor
from tests.support.indexes import CPU, PRODUCTS, WIDTH, label_index, networks

BETA = 0.3
TEXTS, PICTURES = np.random.default_rng(5).normal(size=(2, PRODUCTS, WIDTH)).astype(np.float32)
LENGTHS = np.where(np.arange(PRODUCTS) % 4 > 0, 1, 0)  # every fourth product has no title
EACH = Lists.of_rows([[p] for p in range(PRODUCTS)])


def asked(answers: list[list[int]], right: list[int], items=None, product=None) -> Questions:
    n = len(answers)
    return Questions(
        np.array(["test"] * n),
        np.zeros(n, int) if product is None else np.array(product),
        Lists.of_rows([[0]] * n if items is None else items),
        np.zeros(n, int),
        Lists.of_rows(answers),
        np.array(right),
    )


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    members = networks()
    lists = Lists.of_rows([[p] if LENGTHS[p] else [] for p in range(PRODUCTS)])
    store = DescriptorStore.of_arrays(
        PRODUCTS,
        text=(TEXTS, LENGTHS, lists),
        images=(EACH, PICTURES),
    )
    return Predictor(members, store, label_index(members), CPU, torch.float32)


def slow_score(predictor: Predictor, items: list[int], answer: int, titles_alone=False) -> float:
    """The mean over networks of beta <z^1, x^{2,l}> + (1 - beta) <z^1, x^1>."""
    titled = [i for i in items if LENGTHS[i]]
    one = DescriptorStore.of_arrays(
        1,
        text=(TEXTS, LENGTHS, Lists.of_rows([titled])),
        images=(Lists.of_rows([[] if titles_alone else items]), PICTURES),
    )
    total = 0.0
    with torch.no_grad():
        for network in predictor.networks:
            x = network.bag(one.batch(np.array([0])))
            z = network.bag(predictor.store.batch(np.array([answer])))
            w = network.vector(z)[0]
            total += BETA * float(network.adapted(x, z)[0] @ w)
            total += (1 - BETA) * float(network.vector(x)[0] @ w)
    return total / len(predictor.networks)


def test_answers_are_scored_by_their_own_vectors(predictor):
    questions = asked([[1, 5, 9], [28, 2], [0, 0, 7]], [0, 0, 0], product=[3, 8, 14])
    scores = fill(predictor, questions, BETA)
    for row, answers in enumerate([[1, 5, 9], [28, 2], [0, 0, 7]]):
        items = [int(questions.product[row])]
        expected = [slow_score(predictor, items, answer) for answer in answers]
        assert scores[row, : len(answers)] == pytest.approx(expected, abs=1e-5)
    assert np.isneginf(scores[1, 2])


def test_one_modality_of_the_given_items_can_be_used_alone(predictor):
    questions = asked([[1, 5, 9]], [0], product=[3])
    expected = [slow_score(predictor, [3], answer, True) for answer in (1, 5, 9)]
    assert fill(predictor, questions, BETA, {TEXT})[0] == pytest.approx(expected, abs=1e-5)


def test_an_outfit_is_judged_by_the_mean_score_of_each_item_given_the_others(predictor):
    sets = [[1, 5, 9], [28, 2], [6], [4, 8, 12, 0]]
    scores = compatibility(predictor, Lists.of_rows(sets), BETA)
    for row, items in enumerate(sets):
        if len(items) == 1:
            assert np.isnan(scores[row])
            continue
        each = [
            slow_score(predictor, items[:i] + items[i + 1 :], item) for i, item in enumerate(items)
        ]
        assert scores[row] == pytest.approx(np.mean(each), abs=1e-5)


def test_each_item_is_left_out_once():
    rests, items = without_each(Lists.of_rows([[3, 4, 5], [7], [8, 9]]))
    assert [rests[row].tolist() for row in range(5)] == [[4, 5], [3, 5], [3, 4], [9], [8]]
    assert items.tolist() == [3, 4, 5, 8, 9]


def test_united_bags_hold_each_lexical_term_once():
    terms = Lists.of_rows([[4, 1], [], [1, 2, 4], [9]])
    store = DescriptorStore.of_arrays(4, lexical=terms)
    together = united(store, Lists.of_rows([[0, 2], [1], [3, 0]]))
    assert [together.lexical[row].tolist() for row in range(3)] == [[4, 1, 2], [], [9, 4, 1]]
    assert together.num_products == 3 and store.num_products == 4


def test_outputs_of_early_fusion_cannot_be_united():
    store = DescriptorStore.of_arrays(1, lexical=Lists.of_rows([[0]]))
    store.fused = torch.zeros(1, 1, 2)
    with pytest.raises(MufinError, match="with encoder.fusion early or both"):
        united(store, Lists.of_rows([[0]]))


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=9))
def test_accuracy_is_that_of_a_loop_in_which_ties_are_guesses(rows):
    padded = np.full((len(rows), 4), -np.inf)
    hits = []
    for row, scores in enumerate(rows):
        padded[row, : len(scores)] = scores
        best = [place for place, score in enumerate(scores) if score == max(scores)]
        hits.append((0 in best) / len(best))
    questions = asked([list(range(len(r))) for r in rows], [0] * len(rows))
    share, error = accuracy(padded, questions)
    assert share == pytest.approx(np.mean(hits))
    spread = np.std(hits, ddof=1) / len(hits) ** 0.5 if len(hits) > 1 else 0
    assert error == pytest.approx(spread)


def test_sets_of_one_item_take_no_part_in_the_separation():
    sets = Compatibility(
        np.array(["test"] * 4),
        Lists.of_rows([[1, 2], [3], [4, 5], [6, 7]]),
        np.array([True, True, False, False]),
    )
    assert separation(np.array([0.5, np.nan, 0.2, 0.7]), sets)[0] == 0.5


def test_figures_are_in_percent_and_those_of_one_modality_stand_beside(predictor):
    questions = asked([[1, 5, 9], [28, 2]], [0, 1], product=[3, 8])
    sets = Compatibility(
        np.array(["test"] * 3), Lists.of_rows([[1, 2], [3, 4], [5, 6]]), np.array([1, 0, 1], bool)
    )
    none = OutfitSets(np.array(["test"]), np.array(["a"]), Lists.of_rows([[1, 2]]))
    figures = outfit_figures(predictor, Outfits(none, questions, sets), BETA)
    share, error = accuracy(fill(predictor, questions, BETA), questions)
    test = figures["test"]
    assert test["accuracy"] == pytest.approx(100 * share, abs=1e-4)
    assert test["accuracy_error"] == pytest.approx(100 * error, abs=1e-4)
    assert set(test) == {
        "accuracy",
        "accuracy_error",
        "text_only",
        "image_only",
        "AUC",
        "AUC_error",
    }
    assert figures["valid"] == {}
    assert outfit_figures(predictor, None, BETA) == {}
