"""`data/folds`: what is written is what is read, also where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.out_of_fold import OutOfFold, read_out_of_fold, write_out_of_fold
from mufin.errors import ArtifactError
from mufin.ragged import Lists


def fold(n: int, num_labels: int, ridge: bool, rng: np.random.Generator) -> OutOfFold:
    def lists(most: int) -> Lists:
        sizes = rng.integers(0, most + 1, n)
        return Lists.of_rows([rng.permutation(num_labels)[:size] for size in sizes])

    candidates = lists(num_labels)
    names = ("classifier", "similarity", "ridge")[: 2 + ridge]
    scores = {n: rng.normal(size=len(candidates.values)).astype(np.float32) for n in names}
    counts = rng.integers(0, 9, num_labels)
    return OutOfFold(rng.permutation(n), candidates, scores, lists(3), lists(2), counts)


def equal(a: OutOfFold, b: OutOfFold) -> bool:
    rows = [(x.offsets.tolist(), x.values.tolist()) for x in (a.candidates, a.truth, a.excluded)]
    others = [(x.offsets.tolist(), x.values.tolist()) for x in (b.candidates, b.truth, b.excluded)]
    scores = [{n: v.tolist() for n, v in x.scores.items()} for x in (a, b)]
    counts = a.counts.tolist() == b.counts.tolist()
    same = a.datapoints.tolist() == b.datapoints.tolist()
    return rows == others and scores[0] == scores[1] and counts and same


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=4), st.booleans(), st.integers(0, 999))
def test_folds_are_read_as_they_were_written(tmp_path_factory, sizes, ridge, seed):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("folds") / "folds"
    folds = [fold(n, 7, ridge, rng) for n in sizes]
    write_out_of_fold(folds, folder)
    found = read_out_of_fold(folder)
    assert len(found) == len(folds)
    for a, b in zip(folds, found):
        if len(a.candidates.values):
            assert equal(a, b)
        else:  # no candidate has any score
            assert len(b.candidates) == len(a) and not len(b.candidates.values)


def test_no_folds_are_a_valid_artifact(tmp_path):
    write_out_of_fold([], tmp_path / "folds")
    assert read_out_of_fold(tmp_path / "folds") == []


def test_a_changed_table_is_one_sentence(tmp_path):
    write_out_of_fold([fold(3, 5, True, np.random.default_rng(0))], tmp_path / "folds")
    (tmp_path / "folds/scores.parquet").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="scores.parquet is damaged"):
        read_out_of_fold(tmp_path / "folds")
