"""Search over growing rows against a loop, below and above the switch to HNSW, and its memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.errors import MufinError
from mufin.serving import growing
from mufin.serving.growing import GrowingRows
from tests.support.projects import ROOT, environment

# Whole numbers, so that all products are exact and equal scores occur
VECTORS = st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), VECTORS),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("settle"), st.integers(1, 9)),
        st.tuples(st.just("compact")),
    ),
    max_size=30,
)
QUERIES = st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=3)
ALLOWED = st.one_of(st.none(), st.lists(st.booleans(), min_size=10, max_size=10).map(np.array))


def run(rows: GrowingRows, steps) -> dict[int, np.ndarray]:
    """Takes the steps; the rows that each label then has."""
    held: dict[int, np.ndarray] = {}
    for name, *values in steps:
        if name == "put":
            label, vectors = values[0], np.array(values[1], np.float32).reshape(-1, 3)
            rows.put(label, vectors)
            held[label] = vectors
        else:
            getattr(rows, name)(*values)
        if name == "remove":
            held.pop(values[0], None)
    return {label: vectors for label, vectors in held.items() if len(vectors)}


def slow(held, query, k, allowed=None) -> list[tuple[int, float]]:
    """The k best labels and similarities of one query, by a loop."""
    found = [
        (label, float(max(v @ query for v in vectors)))
        for label, vectors in held.items()
        if allowed is None or allowed[label]
    ]
    found = sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]
    return found + [(-1, -np.inf)] * (k - len(found))


def pairs(found, row: int) -> list[tuple[int, float]]:
    return list(zip(found[0][row].tolist(), found[1][row].tolist()))


@given(STEPS, QUERIES, st.integers(0, 12), ALLOWED, st.sampled_from([1, 4, 2**16]))
@settings(max_examples=300)
def test_exact_search_is_as_a_loop(steps, queries, k, allowed, block):
    rows = GrowingRows(3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(growing, "BLOCK", block)
        held = run(rows, steps)
        found = rows.search(np.array(queries, np.float32), k, allowed)
    assert rows.graph is None and len(rows) == len(held)
    assert (found[0].dtype, found[1].dtype) == (np.int64, np.float32)
    for row, query in enumerate(np.array(queries, np.float32)):
        assert pairs(found, row) == slow(held, query, k, allowed)


@given(STEPS, QUERIES, st.integers(1, 12), ALLOWED, st.integers(0, 5), st.sampled_from([1, 10]))
@settings(max_examples=300)
def test_search_with_a_graph_finds_as_many_allowed_labels(
    steps, queries, k, allowed, exact_up_to, burst
):
    rows = GrowingRows(3, exact_up_to=exact_up_to)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(growing, "BURST", burst)
        patched.setattr(growing, "OVER_FETCH", 1)
        held = run(rows, [*steps, ("settle", 10)])
        found = rows.search(np.array(queries, np.float32), k, allowed)
    for row, query in enumerate(np.array(queries, np.float32)):
        exact = [pair for pair in slow(held, query, 10, allowed) if pair[0] >= 0]
        mine = [pair for pair in pairs(found, row) if pair[0] >= 0]
        assert len({label for label, _ in mine}) == len(mine) == min(k, len(exact))
        assert mine == sorted(mine, key=lambda pair: (-pair[1], pair[0]))
        for label, similarity in mine:
            assert similarity in held[label] @ query  # of one of its rows
        assert all(label in dict(exact) for label, _ in mine)


@pytest.fixture(scope="module")
def catalog() -> tuple[np.ndarray, np.ndarray]:
    """(2000, 4, 32) unit vectors of labels, and (100, 32) queries near to some."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2000, 1, 32))
    vectors = centres + 0.5 * rng.normal(size=(2000, 4, 32))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    queries = vectors[::20, 0] + 0.1 * rng.normal(size=(100, 32))
    return vectors.astype(np.float32), queries.astype(np.float32)


def filled(catalog, **options) -> GrowingRows:
    rows = GrowingRows(32, **options)
    for label, vectors in enumerate(catalog[0]):
        rows.put(label, vectors)
    while rows.settle(500):
        pass
    return rows


def recall(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(one, other)]))


def test_the_graph_finds_what_exact_search_finds(catalog):
    exact, graph = filled(catalog), filled(catalog, exact_up_to=500)
    assert exact.graph is None and graph.waiting == 500 and graph.nodes == 7500
    found, expected = graph.search(catalog[1], 10), exact.search(catalog[1], 10)
    assert recall(found[0], expected[0]) >= 0.95
    assert np.abs(found[1] - expected[1]).max() < 0.1
    # after two thirds were replaced by others, and many removed
    for rows in (exact, graph):
        for label in range(0, 1300):
            rows.put(label, catalog[0][1999 - label])
        for label in range(1300, 1500):
            rows.remove(label)
        rows.settle(2000)
    found, expected = graph.search(catalog[1], 10), exact.search(catalog[1], 10)
    assert recall(found[0], expected[0]) >= 0.95
    assert not np.isin(found[0], np.arange(1300, 1500)).any()


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.01])
def test_allowed_labels_alone_are_found_in_the_graph(catalog, share):
    exact, graph = filled(catalog), filled(catalog, exact_up_to=500)
    allowed = np.random.default_rng(1).random(2000) < share
    found = graph.search(catalog[1], 10, allowed)
    assert (found[0] >= 0).all() and allowed[found[0]].all()
    assert recall(found[0], exact.search(catalog[1], 10, allowed)[0]) >= 0.95


def test_a_search_for_all_labels_in_the_graph_is_exact(catalog):
    exact, graph = filled(catalog), filled(catalog, exact_up_to=500)
    found, expected = graph.search(catalog[1][:3], 2000), exact.search(catalog[1][:3], 2000)
    assert np.array_equal(np.sort(found[0]), np.sort(expected[0]))
    assert np.allclose(found[1], expected[1], atol=1e-6)


def test_many_queries_get_what_one_gets(catalog):
    rows = filled(catalog)
    many = np.tile(catalog[1], (6, 1))
    found = rows.search(many, 5)
    assert np.array_equal(found[0], np.tile(rows.search(catalog[1], 5)[0], (6, 1)))


def test_puts_do_not_wait_for_the_graph_until_many_rows_do():
    rows = GrowingRows(4, exact_up_to=10)
    for label in range(100):
        rows.put(label, np.ones((1, 4), np.float32))
    assert rows.graph is None and rows.waiting == 100
    for label in range(100, 200):
        rows.put(label, np.ones((1, 4), np.float32))
    assert rows.graph is not None and rows.waiting <= 101
    while rows.settle():
        pass
    assert rows.waiting == 10 and rows.nodes == 190


def test_replacing_one_label_for_ever_takes_no_memory():
    rows = GrowingRows(4)
    for _ in range(10_000):
        rows.put(3, np.ones((2, 4), np.float32))
    assert len(rows.rows.data) < 20 and len(rows.labels.data) < 20


def test_compaction_is_for_more_dead_than_living_rows():
    rows = GrowingRows(4)
    for label in range(10):
        rows.put(label, np.full((1, 4), label, np.float32))
    for label in range(5):
        rows.remove(label)
    assert not rows.compact()
    rows.remove(5)
    assert rows.compact() and not rows.compact()
    found = rows.search(np.ones((1, 4), np.float32), 5)
    assert pairs(found, 0) == [(9, 36), (8, 32), (7, 28), (6, 24), (-1, -np.inf)]


MEMORY = """
import json
import numpy as np, psutil
from mufin.serving.growing import GrowingRows
vectors = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
rows = GrowingRows(1000, m=4, ef_construction=10, exact_up_to=1000)
rss = lambda: psutil.Process().memory_info().rss / 1e6
rows.put(0, vectors)
rows.search(vectors, 1)
sizes = [rss()]
for label in range(5000):
    rows.put(label, vectors + label)
while rows.settle(1000):
    pass
rows.search(vectors, 1)
sizes.append(rss())
for label in range(4500):
    rows.remove(label)
rows.search(vectors, 1)
sizes.append(rss())
rows.compact()
rows.search(vectors, 1)
sizes.append(rss())
print(json.dumps(sizes))
"""


def test_compaction_frees_the_memory_of_rows_and_graph():
    words = [sys.executable, "-c", MEMORY]
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment(**more))
    assert done.returncode == 0, done.stderr
    empty, full, marked, compacted = json.loads(done.stdout)
    assert full - empty > 140  # megabytes: 80 of rows and 76 of the graph
    assert marked - empty > 140
    assert compacted - empty < 30  # 8 of rows, and what the search needs


REFUSED = [
    (0, np.ones((1, 3), np.float32), r"shape \(1, 3\)"),
    (0, np.ones(4, np.float32), r"shape \(4,\)"),
    (0, np.full((1, 4), np.nan, np.float32), "finite"),
    (-1, np.ones((1, 4), np.float32), "label is -1"),
]


@pytest.mark.parametrize("label,vectors,said", REFUSED)
def test_rows_that_no_search_can_hold_are_refused(label, vectors, said):
    rows = GrowingRows(4)
    rows.put(0, np.ones((1, 4), np.float32))
    with pytest.raises(MufinError, match=said):
        rows.put(label, vectors)
    assert len(rows) == 1 and rows.alive == 1


def test_queries_of_another_width_and_short_masks_are_refused():
    rows = GrowingRows(4)
    rows.put(7, np.ones((1, 4), np.float32))
    with pytest.raises(MufinError, match="4 dimensions"):
        rows.search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(MufinError, match="NaN"):
        rows.search(np.full((1, 4), np.nan, np.float32), 1)
    with pytest.raises(MufinError, match="7 labels are allowed or not, and label 7 has rows"):
        rows.search(np.ones((1, 4), np.float32), 1, np.ones(7, bool))
