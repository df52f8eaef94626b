"""Groups of titles of similar length: the fewest tokens of all ways to cut, by brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus import title_groups
from mufin.corpus.title_groups import GROUP, by_length


def fewest(lengths: np.ndarray) -> int:
    """The smallest cost over every way to cut the sorted titles."""
    ordered, n = np.sort(lengths), len(lengths)
    ways = (cuts for k in range(n) for cuts in combinations(range(1, n), k))
    return min(
        sum(len(part) * part[-1] + GROUP for part in np.split(ordered, cuts)) for cuts in ways
    )


@given(st.lists(st.sampled_from([1, 100, 400, 1500, 1600, 4000]), min_size=1, max_size=7))
def test_no_other_cuts_have_fewer_tokens(lengths):
    _, groups = by_length(np.array(lengths))
    assert sum(count * longest + GROUP for count, longest in groups) == fewest(np.array(lengths))


@given(st.lists(st.integers(1, 32), max_size=200), st.sampled_from([0, 20, 1024]))
def test_groups_hold_every_title_by_length(lengths, cost):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(title_groups, "GROUP", cost)
        order, groups = by_length(np.array(lengths, np.int32))
    assert sorted(order) == list(range(len(lengths)))
    ends = np.cumsum([0, *(count for count, _ in groups)])
    parts = [np.array(lengths)[order[a:b]] for a, b in zip(ends, ends[1:])]
    assert ends[-1] == len(lengths) and all(part.max() == g[1] for part, g in zip(parts, groups))
    assert all(a.max() < b.min() for a, b in zip(parts, parts[1:]))


def test_few_titles_are_one_group_in_their_order():
    order, groups = by_length(np.array([30, 3, 17]))
    assert list(order) == [0, 1, 2] and groups == ((3, 30),)


def test_a_step_of_titles_has_a_tenth_of_the_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(np.round(rng.lognormal(3.0, 0.5, 3072)), 3, 32).astype(np.int64)
    _, groups = by_length(lengths)
    padding = sum(count * longest for count, longest in groups) - lengths.sum()
    assert 10 * padding < 32 * len(lengths) - lengths.sum() + 10 * GROUP
    assert 3 <= len(groups) <= 10 and min(count for count, _ in groups) > 64
