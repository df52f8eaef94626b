"""Where a split by time cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.corpus.behaviour import cuts
from mufin.errors import MufinError

TIMES = st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda t: len(set(t)) > 1)


@settings(max_examples=200, deadline=None)
@given(TIMES, st.floats(0, 0.95), st.floats(0, 0.95))
def test_cuts_are_between_instants_and_near_the_shares(times, test, valid):
    times = np.array(times, float)
    start_of_valid, start_of_test = cuts(times.copy(), test, valid)
    assert start_of_valid <= start_of_test
    train = times < start_of_valid
    assert train.any()  # something is left to train on
    before = times[times < start_of_test]
    for part, share, start in ((times, test, start_of_test), (before, valid, start_of_valid)):
        wanted = round(share * len(part))
        if not wanted:
            assert not (part >= start).any()
            continue
        instants = np.unique(part)[1:]  # the first one is never cut off
        nearest = min((abs((part >= t).sum() - wanted) for t in instants), default=0)
        assert not len(instants) or abs((part >= start).sum() - wanted) == nearest


@settings(max_examples=50, deadline=None)
@given(TIMES, st.floats(0.05, 0.9), st.integers(1, 9))
def test_later_times_that_stay_later_do_not_move_the_cuts(times, test, more):
    times = np.array(times, float)
    start, end = cuts(times.copy(), test, 0.2)
    last = np.where(times > end, times + more, times)
    if end < np.inf and ((times > end).any() or (times == end).any()):
        assert cuts(last.copy(), test, 0.2) == (start, end)


def test_one_instant_alone_cannot_be_divided():
    with pytest.raises(MufinError, match="all 3 interactions have the same time"):
        cuts(np.full(3, 7.0), 0.3, 0.1)
    assert cuts(np.array([1.0, 1, 1, 2]), 0.25, 0.5) == (2.0, 2.0)  # valid stays empty
