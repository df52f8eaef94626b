"""Scores of left-out datapoints: of all candidates, or of those that any score ranks high."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import Split
from mufin.ragged import Lists
from mufin.ranking import out_of_fold
from mufin.ranking.mix import Mix, rank
from mufin.ranking.mix_choice import Fold
from mufin.ranking.out_of_fold import scored_out_of_fold
from mufin.ranking.predictor import Predictor
from tests.support.indexes import CPU, LABELS, TITLES, label_index, networks, store

ASKED = np.array([3, 29, 0, 14])
LABEL_OF = np.arange(LABELS) * 2 + 1  # of the fold -> of the whole
MIXES = [
    Mix(0.7),
    Mix(0.5, 0.1),
    Mix(1.0),
    Mix(0.0, 0.0, 1.0),
    Mix(1.0, 0.1, 0.5, network_weight=0.0),
    Mix(0.5, 0.1, 0.5, vote_weight=2.0),
    Mix(1.0, vote_weight=1.0, network_weight=0.0),
]


@pytest.fixture(
    scope="module", params=[(False, False), (True, False), (True, True)], ids=["-", "r", "r, v"]
)
def predictor(request) -> Predictor:
    members, (ridge, votes) = networks(), request.param
    index = label_index(members, ridge=ridge, votes=votes)
    return Predictor(members, store(), index, CPU, torch.float32)


def asked() -> Split:
    rng = np.random.default_rng(3)
    rows = [[np.sort(rng.permutation(LABELS)[:n]) for _ in ASKED] for n in (4, 2)]
    return Split(ASKED, *map(Lists.of_rows, rows))


def scored(predictor: Predictor, keep: int, every: bool = True) -> out_of_fold.OutOfFold:
    titles = np.array(TITLES, dtype=object)
    return scored_out_of_fold(
        predictor, asked(), titles, LABEL_OF, np.arange(4), 2 * LABELS + 1, keep, every
    )


@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_ranks_out_of_fold_as_the_predictor_does(predictor, mix):
    split, found = asked(), Fold.of(scored(predictor, LABELS))
    titles = [TITLES[product] for product in ASKED]
    candidates = predictor.candidates(predictor.embed(ASKED), LABELS, split.excluded, titles)
    expected, _ = rank(candidates, mix, split.excluded, predictor.index.log_frequency, 6)
    labels, _ = rank(found.candidates, mix, found.excluded, found.log_frequency, 6)
    assert labels.tolist() == np.where(expected >= 0, LABEL_OF[expected], -1).tolist()
    truth = [LABEL_OF[row].tolist() for row in (split.labels[i] for i in range(len(ASKED)))]
    assert [found.truth[i].tolist() for i in range(len(ASKED))] == truth


@pytest.mark.parametrize("keep", [1, 3])
def test_the_candidates_kept_are_the_best_of_each_score(predictor, keep):
    whole, some = scored(predictor, LABELS), scored(predictor, keep)
    for row in range(len(ASKED)):
        place = slice(*whole.candidates.offsets[row : row + 2])
        ids, expected = whole.candidates.values[place], set()
        for values in whole.scores.values():
            order = sorted(zip((-values[place]).tolist(), ids.tolist()))
            expected |= {label for _, label in order[:keep]}
        assert set(some.candidates[row].tolist()) == expected


def test_a_shortlist_keeps_the_nearest(predictor):
    found = scored(predictor, 5, every=False)
    nearest, _ = predictor.retrieve(predictor.embed(ASKED), 5, asked().excluded)
    assert [found.candidates[i].tolist() for i in range(4)] == LABEL_OF[nearest].tolist()


def test_chunks_change_nothing(predictor, monkeypatch):
    whole = scored(predictor, 3)
    monkeypatch.setattr(out_of_fold, "CHUNK", LABELS)  # a datapoint at a time
    parts = scored(predictor, 3)
    assert whole.candidates.values.tolist() == parts.candidates.values.tolist()
    for name, values in whole.scores.items():
        assert np.allclose(values, parts.scores[name], atol=1e-6)


def test_counts_are_those_of_the_fold_at_its_labels(predictor):
    counts = scored(predictor, 3).counts
    assert counts[LABEL_OF].tolist() == predictor.index.frequency.tolist()
    assert counts.sum() == predictor.index.frequency.sum()
