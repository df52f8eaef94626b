"""Scores of a split, held or block by block, against one call of the predictor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import Split
from mufin.corpus.modality import TEXT
from mufin.evaluation import methods, scored
from mufin.ragged import Lists
from mufin.ranking.mix import Mix, rank
from mufin.ranking.predictor import Predictor
from tests.support.indexes import CPU, LABELS, TITLES, label_index, networks, store

ASKED = np.array([3, 29, 0, 3, 14, 8, 11])


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    members = networks()
    index = label_index(members, ridge=True, votes=True)
    return Predictor(members, store(), index, CPU, torch.float32)


def split() -> Split:
    rng = np.random.default_rng(2)
    excluded = [np.sort(rng.permutation(LABELS)[:3]) for _ in ASKED]
    return Split(ASKED, Lists.of_rows([[1]] * len(ASKED)), Lists.of_rows(excluded))


@pytest.mark.parametrize("cells", [1, 3 * LABELS, 2**26])
def test_blocks_have_the_scores_of_all_datapoints(predictor, cells, monkeypatch):
    monkeypatch.setattr(scored, "CELLS", cells)
    titles, asked = np.array(TITLES, dtype=object), split()
    found = scored.scored(predictor, asked, titles, LABELS)
    assert found.held == (cells == 2**26) and found.terms == {"ridge", "votes"}
    x = predictor.embed(ASKED)
    named = titles[ASKED].tolist()
    wanted = predictor.candidates(x, LABELS, asked.excluded, named, ASKED)
    one = predictor.score(x, wanted.ids, alpha_one=True)
    seen = []
    for rows, block in found.blocks():
        seen.append(rows)
        there = wanted.ids[rows] >= 0
        assert np.array_equal(block.candidates.ids, wanted.ids[rows])
        for name in ("classifier", "similarity", "ridge", "votes"):
            ours, theirs = (getattr(c, name) for c in (block.candidates, wanted))
            assert np.allclose(ours[there], theirs[rows][there], atol=1e-6)
        assert np.allclose(block.alpha_one[there], one[rows][there], atol=1e-6)
    assert np.array_equal(np.concatenate(seen), np.arange(len(ASKED)))
    ids, features = found.features(np.array([5, 0]))
    assert np.array_equal(ids, wanted.ids[[5, 0]])
    there = ids >= 0
    assert np.allclose(features[1][there], one[[5, 0]][there], atol=1e-6)


@pytest.mark.parametrize("cells", [1, 3 * LABELS])
def test_rows_of_one_modality_do_not_depend_on_blocks(predictor, cells, monkeypatch):
    asked, mix = split(), Mix(0.5, 0.1)
    monkeypatch.setattr(methods, "CELLS", cells)
    found = dict(methods.part_rows(predictor, {"test": asked}, LABELS, mix, 8))["text_only"]
    candidates = predictor.candidates(predictor.embed(ASKED, {TEXT}), LABELS, asked.excluded)
    wanted = rank(candidates, mix, asked.excluded, predictor.index.log_frequency, 8)
    assert np.array_equal(found["test"][0], wanted[0])
    assert np.allclose(found["test"][1], wanted[1], atol=1e-6)


def test_a_split_without_datapoints_has_one_empty_block(predictor):
    none = Split(ASKED[:0], Lists.of_rows([]), Lists.of_rows([]))
    found = scored.scored(predictor, none, np.array(TITLES, dtype=object), LABELS)
    ((rows, block),) = found.blocks()
    assert len(rows) == 0 and block.candidates.ids.shape == (0, LABELS) and found.held


def test_taken_products_have_their_own_bags(predictor):
    x, index = predictor.embed(ASKED)[0], np.array([4, 1, 1])
    taken, wanted = x.take(index).bags(np.arange(3), CPU), x.bags(index, CPU)
    assert torch.equal(taken.rows, wanted.rows) and torch.equal(taken.modality, wanted.modality)
    assert x.take(np.arange(len(ASKED))) is x
