"""Scores of answers and outfits against a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits import scoring
from mufin.baselines.outfits.scoring import Scorer
from mufin.ragged import Lists

VECTORS = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
TYPES = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])


class ByTypes:
    """A distance that is not symmetric, so that a mistaken order shows."""

    def distance(self, a, a_types, b, b_types):
        return ((a - b).abs() * (1 + a_types + 3 * b_types)[..., None]).sum(-1)


def one_distance(a: int, b: int) -> float:
    return float((VECTORS[a] - VECTORS[b]).abs().sum() * (1 + TYPES[a] + 3 * TYPES[b]))


def questions(given: list[list[int]], answers: list[list[int]]) -> Questions:
    n, zeros = len(given), np.zeros(len(given), np.int64)
    return Questions(
        np.full(n, "test"), zeros, Lists.of_rows(given), zeros, Lists.of_rows(answers), zeros
    )


@pytest.fixture(params=[2**22, 1], ids=["one chunk", "a chunk per row"])
def scorer(request, monkeypatch):
    monkeypatch.setattr(scoring, "NUMBERS", request.param)
    return Scorer(ByTypes(), VECTORS, TYPES)


def test_an_answer_scores_its_mean_distance_to_the_given_items(scorer):
    given, answers = [[0, 1], [2], [3, 4, 5]], [[6, 7, 8], [1, 0], [8, 2, 1]]
    found = scorer.fill(questions(given, answers))
    expected = np.full((3, 3), -np.inf)
    for row, (some, own) in enumerate(zip(given, answers)):
        for column, answer in enumerate(own):
            expected[row, column] = -np.mean([one_distance(item, answer) for item in some])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_question_without_given_items_scores_all_answers_alike(scorer):
    assert scorer.fill(questions([[], [1]], [[2, 3], [2, 3]]))[0].tolist() == [0, 0]


def test_compatibility_is_the_mean_distance_of_all_pairs(scorer):
    outfits = [[0, 1, 2], [3, 8], [5], [7, 6, 5, 4]]
    found = scorer.compatibility(Lists.of_rows(outfits))
    for score, own in zip(found, outfits):
        pairs = [one_distance(a, b) for a in own for b in own if a != b]
        assert np.isnan(score) if not pairs else score == pytest.approx(-np.mean(pairs), rel=1e-5)
