"""Related products from baskets: against a slow loop, a plain X^T X, and closed forms."""

import itertools
import math
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from mufin.corpus import baskets, cooccurrence
from mufin.corpus.cooccurrence import related_by_baskets
from mufin.errors import MufinError

DAY = 86400
NAN = math.nan


@dataclass(frozen=True)
class How:
    """The settings that `related_by_baskets` reads."""

    score: str = "count"
    min_support: float = 1e-30
    per_product: int = 1000
    per_basket: int = 1000
    window: float | None = None
    direction: str = "both"
    half_life: float | None = None


def batch(rows):
    """(items, baskets, times, weights) of (basket, item[, time[, weight]]) rows."""
    full = [(*row, NAN, 1.0)[:4] if len(row) == 2 else (*row, 1.0)[:4] for row in rows]
    columns = [list(column) for column in zip(*full)] if full else [[], [], [], []]
    types = (np.int64, np.int32, np.float64, np.float32)
    b, i, t, w = (np.array(column, kind) for column, kind in zip(columns, types))
    return i, b, t, w


def related(rows, scratch, n=6, how=None, threads=1, **changes):
    """({(i, j): score}, counts) of rows, in batches of seven."""
    how = how or How(**changes)
    batches = [batch(rows[k : k + 7]) for k in range(0, len(rows), 7)]
    scratch.mkdir(exist_ok=True)
    found, scores, counts = related_by_baskets(batches, n, how, scratch, threads)
    assert not list(scratch.iterdir())
    assert len(found) == n and scores.dtype == np.float32
    pairs = list(zip(found.rows().tolist(), found.values.tolist()))
    assert pairs == sorted(set(pairs))
    return dict(zip(pairs, scores.tolist())), counts


def slow(rows, n, how):
    """The definition, in loops: {(i, j): score}."""
    full = [(*row, NAN, 1.0)[:4] if len(row) == 2 else (*row, 1.0)[:4] for row in rows]
    timed = how.window is not None or how.direction == "after"
    if timed or how.half_life:
        full = [row for row in full if not math.isnan(row[2])]
    newest = max((row[2] for row in full if not math.isnan(row[2])), default=0)
    of = defaultdict(list)
    for basket, item, time, weight in full:
        of[basket].append(
            (-math.inf if math.isnan(time) else time, item, float(np.float32(weight)))
        )
    c, a, total = defaultdict(float), defaultdict(float), 0.0
    for basket in sorted(of):
        kept = {}
        for time, item, weight in sorted(of[basket], key=lambda row: row[0]):
            key = (item, time) if timed else item
            weight = max(weight, kept.pop(key, (0, 0, 0))[2])
            kept[key] = (time, item, weight)
        last = list(kept.values())[-how.per_basket :]
        x = [
            (time, item, w * (0.5 ** ((newest - time) / (2 * DAY * how.half_life))))
            if how.half_life
            else (time, item, w)
            for time, item, w in last
        ]
        total += max(v for *_, v in x) ** 2
        for i in {item for _, item, _ in x}:
            a[i] += max(v for _, item, v in x if item == i) ** 2
        best = defaultdict(float)
        for (s, i, v), (t, j, w) in itertools.permutations(x, 2):
            near = how.window is None or abs(t - s) <= how.window * DAY
            if i != j and near and (how.direction == "both" or t > s):
                best[i, j] = max(best[i, j], v * w)
        for pair, value in best.items():
            c[pair] += value
    score = {
        "count": lambda i, j: c[i, j],
        "cosine": lambda i, j: c[i, j] / (math.sqrt(a[i]) * math.sqrt(a[j])),
        "lift": lambda i, j: c[i, j] / a[i] * (total / a[j]),
    }[how.score]
    scored = {(i, j): float(np.float32(score(i, j))) for i, j in c if c[i, j] >= how.min_support}
    out = {}
    for i in range(n):
        mine = sorted((-s, j) for (k, j), s in scored.items() if k == i)
        out |= {(i, j): -s for s, j in mine[: how.per_product]}
    return dict(sorted(out.items()))


def many(seed=0, rows=3000, users=300, n=60, timed=True, weighted=False):
    """Seeded rows with repeated products, equal times and a few popular products."""
    rng = np.random.default_rng(seed)
    items = np.minimum(rng.zipf(1.3, rows) - 1, n - 1)
    times = rng.integers(0, 40, rows) * DAY / 4 - 3 * DAY if timed else np.full(rows, NAN)
    weights = rng.integers(1, 5, rows) if weighted else np.ones(rows)
    users = rng.integers(0, users, rows) - 5
    return list(zip(users.tolist(), items.tolist(), times.tolist(), weights.tolist()))


# The definition


@pytest.mark.parametrize("score", ["count", "cosine", "lift"])
def test_equals_a_plain_xtx_exactly(tmp_path, score):
    rows = many(timed=False)
    x = np.zeros((300, 60))
    for basket, item, *_ in rows:
        x[basket, item] = 1
    x = csr_array(x)
    c = (x.T @ x).toarray()
    a, n = np.diag(c), np.count_nonzero(x.sum(1))
    wanted = {"count": c, "cosine": c / np.sqrt(np.outer(a, a)), "lift": c * n / np.outer(a, a)}
    got, counts = related(rows, tmp_path / "s", 60, score=score)
    pairs = {(i, j) for i, j in np.argwhere(c) if i != j}
    assert set(got) == pairs and not counts
    for pair in pairs:
        if score == "count":
            assert got[pair] == c[pair]
        assert got[pair] == pytest.approx(wanted[score][pair], rel=1e-6)


def test_weights_are_the_elements_of_x(tmp_path):
    rows = many(timed=False, weighted=True)
    x = np.zeros((300, 60))
    for basket, item, _, weight in rows:
        x[basket, item] = max(x[basket, item], weight)
    c = x.T @ x
    got, _ = related(rows, tmp_path / "s", 60)
    assert got == {(i, j): c[i, j] for i, j in np.argwhere(c).tolist() if i != j}


WAYS = [
    How(),
    How(score="cosine", min_support=3, per_product=4),
    How(score="lift", per_product=3, per_basket=4),
    How(window=2.0),
    How(direction="after"),
    How(score="cosine", window=1.0, direction="after", per_product=5, min_support=2),
    How(score="cosine", window=1.5, per_basket=5, half_life=3.0),
    How(score="lift", half_life=2.5, min_support=0.3, per_basket=6),
    How(direction="after", half_life=5.0, per_basket=3, per_product=2),
]


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_equals_the_slow_loop(tmp_path, how, weighted):
    rows = many(weighted=weighted)
    got, _ = related(rows, tmp_path / "s", 60, how)
    wanted = slow(rows, 60, how)
    assert list(got) == list(wanted)
    assert list(got.values()) == pytest.approx(list(wanted.values()), rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-2, 3),
            st.integers(0, 5),
            st.one_of(st.just(NAN), st.integers(-5, 5).map(lambda k: k * DAY / 2)),
            st.sampled_from([1.0, 2.0, 0.5]),
        ),
        max_size=40,
    ),
    how=st.builds(
        How,
        score=st.sampled_from(["count", "cosine", "lift"]),
        min_support=st.sampled_from([1e-30, 0.9, 2.0]),
        per_product=st.integers(1, 6),
        per_basket=st.integers(2, 8),
        window=st.sampled_from([None, 0.5, 1.0]),
        direction=st.sampled_from(["both", "after"]),
    ),
)
def test_equals_the_slow_loop_on_any_rows(tmp_path_factory, rows, how):
    timed = how.window is not None or how.direction == "after"
    if timed and rows and all(math.isnan(row[2]) for row in rows):
        rows = [*rows, (0, 0, 0.0, 1.0)]
    got, _ = related(rows, tmp_path_factory.mktemp("rows"), 6, how)
    wanted = slow(rows, 6, how)
    assert list(got) == list(wanted)
    assert list(got.values()) == pytest.approx(list(wanted.values()), rel=1e-6)


# Closed forms


def test_a_product_twice_in_a_basket_counts_once(tmp_path):
    rows = [(1, 0), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert related(rows, tmp_path / "s")[0] == {(0, 1): 2, (1, 0): 2}
    heavy = [(1, 0, NAN, 2.0), (1, 0, NAN, 3.0), (1, 1, NAN, 1.0)]
    assert related(heavy, tmp_path / "s")[0] == {(0, 1): 3, (1, 0): 3}


def test_windows_are_inclusive(tmp_path):
    rows = [(1, 0, 0.0), (1, 1, 2.0 * DAY), (1, 2, 4.5 * DAY)]
    near = {(0, 1): 1, (1, 0): 1}
    assert related(rows, tmp_path / "s", window=2.0)[0] == near
    assert related(rows, tmp_path / "s", window=1.99)[0] == {}
    assert set(related(rows, tmp_path / "s", window=2.5)[0]) == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_after_relates_the_first_to_the_later(tmp_path):
    rows = [(1, 0, 5.0), (1, 1, 9.0), (1, 2, 9.0), (2, 1, -7.0)]
    assert related(rows, tmp_path / "s", direction="after")[0] == {(0, 1): 1, (0, 2): 1}


def test_products_bought_in_turns_come_after_each_other(tmp_path):
    rows = [(1, 0, 0.0), (1, 1, 1.0 * DAY), (1, 0, 9.0 * DAY), (1, 0, 9.5 * DAY)]
    assert related(rows, tmp_path / "s", direction="after")[0] == {(0, 1): 1, (1, 0): 1}
    assert related(rows, tmp_path / "s", direction="after", window=2.0)[0] == {(0, 1): 1}


def test_a_pair_counts_half_after_the_half_life(tmp_path):
    rows = [(1, 0, 0.0), (1, 1, 0.0), (2, 2, 30.0 * DAY), (2, 3, 30.0 * DAY)]
    got, _ = related(rows, tmp_path / "s", half_life=30.0)
    assert got == {(0, 1): 0.5, (1, 0): 0.5, (2, 3): 1.0, (3, 2): 1.0}
    # Of an older and a newer one, the mean of both ages counts; the cosine does not see the age.
    mixed = [(1, 0, 0.0), (1, 1, 60.0 * DAY)]
    assert related(mixed, tmp_path / "s", half_life=30.0)[0][0, 1] == 0.5
    cosine, _ = related(mixed, tmp_path / "s", half_life=30.0, score="cosine")
    assert cosine[0, 1] == pytest.approx(1)


def test_events_too_old_to_count_leave_no_trace(tmp_path):
    rows = [(1, 0, -1e15), (1, 1, -1e15), (2, 2, 1e9), (2, 3, 1e9)]
    assert set(related(rows, tmp_path / "s", half_life=0.001, score="lift")[0]) == {(2, 3), (3, 2)}


def test_the_support_is_rounded_to_no_ones_loss(tmp_path):
    rows = [(b, i, NAN, math.sqrt(0.1)) for b in range(20) for i in (0, 1)]
    got, counts = related(rows, tmp_path / "s", min_support=2.0)
    assert len(got) == 2 and not counts
    got, counts = related(rows, tmp_path / "s", min_support=2.01)
    assert not got and counts == {"pairs below the support": 2}


def test_lift_does_not_depend_on_the_unit_of_weights(tmp_path):
    rows = many(weighted=True, timed=False)
    larger = [(b, i, t, w * 64) for b, i, t, w in rows]
    one, _ = related(rows, tmp_path / "s", 60, score="lift")
    assert related(larger, tmp_path / "s", 60, score="lift")[0] == one


def test_ties_go_to_the_smaller_number(tmp_path):
    rows = [(b, i) for b in range(2) for i in (5, 3, 1, 4, 2)]
    got, counts = related(rows, tmp_path / "s", per_product=2)
    assert [j for i, j in got if i == 5] == [1, 2] and [j for i, j in got if i == 1] == [2, 3]
    assert counts == {"pairs beyond the cap per product": 10}


def test_large_baskets_keep_their_last_products(tmp_path):
    by_row = [(1, i) for i in (0, 1, 2, 3)]
    got, counts = related(by_row, tmp_path / "s", per_basket=2)
    assert set(got) == {(2, 3), (3, 2)}
    assert counts == {"products beyond the cap per basket": 2}
    by_time = [(1, 0, 9.0), (1, 1, 8.0), (1, 2, 1.0), (1, 3)]
    assert set(related(by_time, tmp_path / "s", per_basket=2)[0]) == {(0, 1), (1, 0)}
    again = [*by_row, (1, 0)]
    assert set(related(again, tmp_path / "s", per_basket=2)[0]) == {(0, 3), (3, 0)}


# Sizes


def arrays(items, baskets):
    n = len(items)
    return (
        np.asarray(items, np.int32),
        np.asarray(baskets, np.int64),
        np.full(n, NAN),
        np.ones(n, np.float32),
    )


def test_a_basket_of_5000_makes_few_pairs(tmp_path):
    rows = arrays(np.arange(5000), np.zeros(5000))
    found, _, counts = related_by_baskets([rows], 5000, How(per_basket=100), tmp_path)
    assert len(found.values) == 100 * 99 and found.lengths()[-100:].tolist() == [99] * 100
    assert counts == {"products beyond the cap per basket": 4900}


def test_all_rows_in_one_basket(tmp_path, monkeypatch):
    monkeypatch.setattr(baskets, "PIECE", 1000)
    items = np.random.default_rng(0).permutation(np.arange(20_000) % 7000)
    rows = arrays(items, np.full(20_000, -(2**63)))
    how = How(per_basket=50)
    found, _, _ = related_by_baskets([rows], 7000, how, tmp_path)
    last = list(dict.fromkeys(items[::-1].tolist()))[:50]
    assert np.flatnonzero(found.lengths()).tolist() == sorted(last)


def test_all_rows_of_one_product(tmp_path):
    found, scores, counts = related_by_baskets(
        [arrays(np.zeros(9999), np.arange(9999) // 3)], 1, How(score="cosine"), tmp_path
    )
    assert len(found) == 1 and not len(scores) and not counts


@pytest.mark.parametrize("timed", [{}, {"direction": "after"}, {"half_life": 1.0}])
@pytest.mark.parametrize("rows", [[], [(1, 0, 5.0)], [(1, 0, 5.0), (2, 1, 5.0)]])
def test_no_pair_gives_empty_rows(tmp_path, rows, timed):
    assert related(rows, tmp_path / "s", **timed) == ({}, {})
    found, scores, _ = related_by_baskets([], 0, How(**timed), tmp_path / "s")
    assert len(found) == 0 and len(scores) == 0


def test_needed_times_that_are_missing_stop(tmp_path):
    with pytest.raises(MufinError, match="interactions.time"):
        related([(1, 0), (1, 1)], tmp_path / "s", direction="after")
    assert not list((tmp_path / "s").iterdir())
    rows = [(1, 0), (1, 1), (1, 2, 0.0), (1, 3, 1.0)]
    got, counts = related(rows, tmp_path / "s", direction="after")
    assert got == {(2, 3): 1} and counts == {"rows without a time": 2}


def test_a_product_number_out_of_range_stops(tmp_path):
    for item in (-1, 3):
        with pytest.raises(ValueError, match="product number"):
            related_by_baskets([arrays([item], [0])], 3, How(), tmp_path)


def test_too_many_elements_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(cooccurrence, "MOST", 3)
    with pytest.raises(MufinError, match="per_basket"):
        related([(1, 0), (1, 1), (2, 0), (2, 1)], tmp_path / "s")


def test_extreme_weights_give_finite_scores(tmp_path):
    for weight in (1e-38, 3e38):
        rows = [(b, i, NAN, weight) for b in range(3) for i in (0, 1)]
        for score in ("cosine", "lift", "count"):
            got, _ = related(rows, tmp_path / "s", score=score, min_support=1e-300)
            assert all(math.isfinite(value) for value in got.values()) and len(got) == 2


# The same bytes, and memory

SMALL = {
    baskets: {"ROWS": 100, "PIECE": 64, "PARTS": 3},
    cooccurrence: {"PAIRS": 500, "TIMED": 300, "ENTRIES": 97},
}


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_sizes_of_parts_and_threads_change_no_byte(tmp_path, monkeypatch, how):
    rows = many(weighted=True)
    whole, _ = related(rows, tmp_path / "s", 60, how)
    for module, sizes in SMALL.items():
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)
    if how.per_basket < 1000:  # a part that is cut early forgets weights of rows before the cut
        monkeypatch.setattr(baskets, "PIECE", 10_000)
    for threads in (1, 3):
        assert related(rows, tmp_path / "s", 60, how, threads)[0] == whole


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    for module, sizes in SMALL.items():
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, 50 * size)

    def peak(rows):
        def batches():
            rng = np.random.default_rng(0)
            for k in range(rows // 1000):
                yield arrays(np.minimum(rng.zipf(1.5, 1000), 999), np.arange(1000) // 8 + k * 125)

        tracemalloc.start()
        related_by_baskets(batches(), 1000, How(per_product=5), tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(10_000)  # what is imported at the first use counts too
    # A few numbers per basket; the products in baskets are mapped from files.
    assert (peak(400_000) - peak(100_000)) / (300_000 / 8) < 64
