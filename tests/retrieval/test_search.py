"""Exact search against a slow loop; HNSW is never short of labels and near to exact; files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.retrieval import exact as exact_module
from mufin.retrieval import hnsw as hnsw_module
from mufin.retrieval import neighbours as neighbours_module
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.retrieval.neighbours import build_neighbours, load_neighbours

CPU = torch.device("cpu")


def problem(rows: int, labels: int, n: int, seed: int, dim: int = 4):
    """Small whole numbers, which float32 multiplies and adds without rounding: many ties.

    Some labels have no rows.
    """
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.integers(-2, 3, (size, dim)).astype(np.float32) for size in (rows, n))
    label = rng.integers(-1 if seed % 2 else 0, labels, rows)
    excluded = Lists.of_rows([rng.permutation(labels)[: rng.integers(0, 4)] for _ in range(n)])
    return LabelRows(vectors, label, labels), queries, excluded


def clustered(
    labels: int, rows_each: int, dim: int, seed: int = 0, clusters: int = 40
) -> tuple[LabelRows, np.ndarray]:
    """Unit rows near labels, which are near the centres of clusters; and 200 queries near those."""
    rng = np.random.default_rng(seed)

    def near(centres: np.ndarray, spread: float) -> np.ndarray:
        moved = centres + spread * rng.normal(size=centres.shape) / np.sqrt(dim)
        return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)

    centres = near(np.zeros((clusters, dim)), 1.0)
    names = near(centres[rng.integers(0, clusters, labels)], 0.7)
    label = np.repeat(np.arange(labels), rows_each)
    return LabelRows(near(names[label], 0.4), label, labels), near(
        centres[rng.integers(0, clusters, 200)], 0.7
    )


def slow_search(rows: LabelRows, queries: np.ndarray, k: int, excluded: Lists | None):
    labels, values = [], []
    for i, query in enumerate(queries):
        best: dict[int, float] = {}
        for vector, label in zip(rows.rows, rows.label.tolist()):
            if label >= 0 and (excluded is None or label not in excluded[i]):
                best[label] = max(best.get(label, -np.inf), float(vector @ query))
        found = sorted(best, key=lambda label, best=best: (-best[label], label))[:k]
        labels.append(found + [-1] * (k - len(found)))
        values.append([best[label] for label in found] + [-np.inf] * (k - len(found)))
    return labels, values


def check_honest(
    rows: LabelRows, queries, labels, values, k: int, excluded: Lists | None = None
) -> None:
    """k unique labels where so many exist, best first, each with the similarity of one of its rows;
    none that is excluded or removed."""
    present = set(rows.label[rows.label >= 0].tolist())
    for i, query in enumerate(queries):
        allowed = present - (set(excluded[i].tolist()) if excluded is not None else set())
        found = labels[i][labels[i] >= 0]
        assert len(set(found.tolist())) == len(found) == min(k, len(allowed))
        assert set(found.tolist()) <= allowed
        assert (labels[i][len(found) :] == -1).all() and (values[i][len(found) :] == -np.inf).all()
        assert (np.diff(values[i][: len(found)]) <= 0).all()
        for label, value in zip(found, values[i]):
            assert np.abs(rows.rows[rows.label == label] @ query - value).min() < 1e-5


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([np.isin(w, f).mean() for f, w in zip(found, wanted)]))


def test_a_label_may_have_thousands_of_rows():
    rng = np.random.default_rng(0)
    label = np.concatenate([np.full(3000, 2), np.full(70, 5), np.arange(8)])
    rows = LabelRows(rng.normal(size=(len(label), 4)).astype(np.float32), rng.permutation(label), 9)
    exact = ExactNeighbours(rows, CPU)
    parts = exact.arranged()
    assert len(parts.sizes) == exact_module.LAYERS + 2 and sorted(parts.further) == [0, 1]
    queries = rng.normal(size=(5, 4)).astype(np.float32)
    best = np.stack([(queries @ rows.rows[rows.label == label].T).max(1) for label in range(8)], 1)
    found, values = exact.search(queries, 9)
    assert found.tolist() == [[*np.argsort(-row), -1] for row in best]
    assert np.allclose(values[:, :8], -np.sort(-best, axis=1), atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 30),
    st.integers(1, 12),
    st.integers(0, 6),
    st.integers(0, 15),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_exact_search_is_a_loop_over_labels_rows(rows, labels, n, k, filters, seed):
    source, queries, excluded = problem(rows, labels, n, seed)
    excluded = excluded if filters else None
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # labels with more rows than there are layers, every other time
        patch.setattr(exact_module, "LAYERS", 64 if seed % 4 < 2 else 1 + seed % 3)
        found, values = ExactNeighbours(source, CPU).search(queries, k, excluded)
    expected, numbers = slow_search(source, queries, k, excluded)
    assert (
        found.dtype == np.int64
        and values.dtype == np.float32
        and found.shape == values.shape == (n, k)
    )
    assert found.tolist() == expected and values.tolist() == numbers


def test_exact_search_in_chunks_is_exact_search_at_once(monkeypatch):
    source, queries, excluded = problem(60, 20, 50, 2)
    whole = ExactNeighbours(source, CPU).search(queries, 9, excluded)
    for budget in (1, 80 * 7, 80 * 49):
        monkeypatch.setattr(exact_module, "BUDGET", budget)
        parts = ExactNeighbours(source, CPU).search(queries, 9, excluded)
        assert all((x == y).all() for x, y in zip(whole, parts))


def test_equal_labels_come_by_id_also_at_the_cut():
    rows = LabelRows(np.ones((40, 2), np.float32), np.random.default_rng(0).permutation(40), 40)
    labels, _ = ExactNeighbours(rows, CPU).search(np.ones((3, 2)), 7)
    assert labels.tolist() == [list(range(7))] * 3


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(1, 12),
    st.integers(0, 5),
    st.integers(0, 15),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_hnsw_always_finds_enough_unique_labels(rows, labels, n, k, filters, seed):
    source, queries, excluded = problem(rows, labels, n, seed)
    excluded = excluded if filters else None
    found, values = HnswNeighbours(source, 8, 40, 20).search(queries, k, excluded)
    assert found.shape == values.shape == (n, k)
    check_honest(source, queries, found, values, k, excluded)


@pytest.mark.parametrize(
    "widest", [64, 2]
)  # the second search is exact at once, or wider and wider in the graph
def test_hnsw_is_not_short_beside_a_flood_of_rows(monkeypatch, widest):
    monkeypatch.setattr(hnsw_module, "WIDEST", widest)
    others, queries = clustered(300, 4, 16, 1)
    rng = np.random.default_rng(0)
    flood = (
        queries[rng.integers(0, len(queries), 2000)] * 1.5
        + rng.normal(size=(2000, 16)).astype(np.float32) * 0.01
    )
    rows = others.joined(LabelRows(flood, np.full(2000, 300), 301))
    excluded = Lists.of_rows([rng.permutation(301)[:5] for _ in queries])
    neighbours = HnswNeighbours(rows, 16, 100, 50)
    fetched = []
    real = neighbours._fetch
    monkeypatch.setattr(
        neighbours, "_fetch", lambda q, count: fetched.append(count) or real(q, count)
    )
    for k in (1, 10, 30):
        fetched.clear()
        found, values = neighbours.search(queries, k, excluded)
        check_honest(rows, queries, found, values, k, excluded)
        assert recall(found, ExactNeighbours(rows, CPU).search(queries, k, excluded)[0]) > 0.95
        assert k == 1 or len(fetched) > (
            widest == 2
        )  # wider and wider where the graph is searched again


@pytest.mark.parametrize("k", [1, 10, 50])
def test_hnsw_finds_nearly_what_exact_search_finds(monkeypatch, k):
    rows, queries = clustered(1500, 3, 24)
    neighbours = HnswNeighbours(rows, 16, 100, 200)
    monkeypatch.setattr(
        neighbours, "_exact", lambda: pytest.fail("the graph alone has enough labels here")
    )
    found, values = neighbours.search(queries, k)
    wanted, best = ExactNeighbours(rows, CPU).search(queries, k)
    assert recall(found, wanted) >= 0.95
    same = found == wanted
    np.testing.assert_allclose(values[same], best[same], atol=1e-5)


def test_hnsw_in_chunks_is_hnsw_at_once(monkeypatch):
    rows, queries = clustered(200, 3, 8)
    excluded = Lists.of_rows([[i % 200] for i in range(len(queries))])
    neighbours = HnswNeighbours(rows, 8, 40, 40)
    whole = neighbours.search(queries, 5, excluded)
    monkeypatch.setattr(hnsw_module, "FETCHED", 35 * 30)
    assert all((x == y).all() for x, y in zip(whole, neighbours.search(queries, 5, excluded)))


def test_exact_search_replaces_a_graph_without_enough_links():
    """Other faults of the graph are raised."""
    rows, queries = clustered(100, 3, 8)
    neighbours = HnswNeighbours(rows, 8, 40, 40)

    class Unreachable:
        said = "Cannot return the results in a contiguous 2D array. Probably ef or M is too small"

        def set_ef(self, ef):
            pass

        def knn_query(self, queries, count):
            raise RuntimeError(self.said)

    neighbours.graph = Unreachable()
    assert (
        neighbours.search(queries, 5)[0] == ExactNeighbours(rows, CPU).search(queries, 5)[0]
    ).all()
    Unreachable.said = "Wrong dimensionality of the vectors"
    with pytest.raises(RuntimeError, match="dimensionality"):
        neighbours.search(queries, 5)


def test_the_seed_decides_the_bytes_of_a_graph(tmp_path):
    rows, _ = clustered(300, 3, 8)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        HnswNeighbours(rows, 8, 40, 40, seed).save(tmp_path / name)
    a, b, c = ((tmp_path / name / "hnsw.bin").read_bytes() for name in "abc")
    assert a == b != c


def test_a_saved_structure_finds_the_same_labels(tmp_path):
    rows, queries = clustered(300, 3, 8)
    new = LabelRows(queries[:5], np.array([300, 301, 301, 7, 7]), 302)
    for number, change in enumerate(
        (lambda n: None, lambda n: n.add(new), lambda n: n.remove(np.arange(0, 300, 3)))
    ):
        neighbours = HnswNeighbours(rows, 8, 40, 77)
        change(neighbours)
        folder = tmp_path / str(number)
        neighbours.save(folder)
        again = load_neighbours(folder, neighbours.source, CPU)
        assert isinstance(again, HnswNeighbours) and again.ef == 77
        for excluded in (None, Lists.of_rows([sorted({i, 299 - i}) for i in range(len(queries))])):
            before, after = (n.search(queries, 8, excluded) for n in (neighbours, again))
            assert all((x == y).all() for x, y in zip(before, after))
    exact = ExactNeighbours(rows, CPU)
    exact.save(tmp_path / "none")
    assert isinstance(load_neighbours(tmp_path / "none", rows, CPU), ExactNeighbours)


def broken(good: bytes) -> dict[str, bytes]:
    rng, middle = np.random.default_rng(0), len(good) // 2
    return {
        "empty": b"",
        "another file": b"not a graph" * 99,
        "half": good[:middle],
        "longer": good + b"x",
        "noise": rng.bytes(len(good)),
        "noise in the links": good[:middle] + rng.bytes(400) + good[middle + 400 :],
    }


@pytest.mark.parametrize("kind", broken(bytes(1000)))
def test_a_broken_graph_is_one_sentence(tmp_path, kind):
    rows, _ = clustered(100, 3, 8)
    HnswNeighbours(rows, 8, 40, 40).save(tmp_path)
    (tmp_path / "hnsw.bin").write_bytes(broken((tmp_path / "hnsw.bin").read_bytes())[kind])
    with pytest.raises(MufinError, match=r"hnsw.bin is broken.*run `dvc repro index` again$"):
        load_neighbours(tmp_path, rows, CPU)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", json.dumps({"ef": 3})])
def test_a_graph_without_its_facts_is_one_sentence(tmp_path, content):
    rows, _ = clustered(100, 3, 8)
    HnswNeighbours(rows, 8, 40, 40).save(tmp_path)
    (tmp_path / "hnsw.json").unlink()
    if content is not None:
        (tmp_path / "hnsw.json").write_text(content)
    with pytest.raises(
        MufinError, match=r"hnsw.json cannot be read .*run `dvc repro index` again$"
    ):
        load_neighbours(tmp_path, rows, CPU)


@pytest.mark.parametrize("labels, dim", [(90, 8), (110, 8), (100, 4), (100, 32)])
def test_a_graph_of_other_rows_is_one_sentence(tmp_path, labels, dim):
    HnswNeighbours(clustered(100, 3, 8)[0], 8, 40, 40).save(tmp_path)
    with pytest.raises(MufinError, match="does not belong to the index"):
        load_neighbours(tmp_path, clustered(labels, 3, dim)[0], CPU)


@pytest.mark.parametrize(
    "make",
    [lambda rows: ExactNeighbours(rows, CPU), lambda rows: HnswNeighbours(rows, 8, 40, 40)],
    ids=["exact", "hnsw"],
)
def test_added_labels_are_found_and_removed_ones_not(make):
    rows, queries = clustered(120, 3, 8)
    neighbours = make(rows)
    new = LabelRows(queries[:20] * 2, np.arange(120, 140), 140)
    neighbours.add(new)
    assert neighbours.search(queries[:20], 1)[0].shape == (20, 1)
    assert all(
        i + 120 in row for i, row in enumerate(neighbours.search(queries[:20], 20)[0].tolist())
    )
    gone = np.concatenate([np.arange(0, 120, 4), [125, 126]])
    neighbours.remove(gone)
    neighbours.remove(gone[:3])  # removed already: no matter
    left = rows.joined(new).without(gone)
    for k in (10, 140):
        found, values = neighbours.search(queries, k)
        check_honest(left, queries, found, values, k)
        assert (
            recall(
                found, [row[row >= 0] for row in ExactNeighbours(left, CPU).search(queries, k)[0]]
            )
            > 0.95
        )
    neighbours.remove(np.arange(140))
    assert (neighbours.search(queries, 3)[0] == -1).all()


@pytest.mark.parametrize(
    "make",
    [lambda rows: ExactNeighbours(rows, CPU), lambda rows: HnswNeighbours(rows, 8, 40, 40)],
    ids=["exact", "hnsw"],
)
def test_bad_queries_are_one_sentence(make):
    rows, queries = clustered(50, 2, 8)
    neighbours = make(rows)
    with pytest.raises(MufinError, match="build the index again"):
        neighbours.search(queries[:, :5], 3)
    queries[[4, 9], 1] = np.nan, np.inf
    with pytest.raises(MufinError, match="2 queries hold NaN or infinity, the first is row 4"):
        neighbours.search(queries, 3)


def test_rows_need_a_label_each_that_exists():
    with pytest.raises(MufinError, match="give one label per vector"):
        LabelRows(np.zeros((2, 3), np.float32), np.zeros(1, np.int64), 1)
    for label in (-2, 4):
        with pytest.raises(MufinError, match=r"must lie in \[0, 4\)"):
            LabelRows(np.zeros((1, 3), np.float32), np.array([label]), 4)


def test_auto_is_exact_for_few_rows(monkeypatch):
    rows, _ = clustered(50, 2, 8)
    settings_of = dict(m=8, ef_construction=40, ef=40, device=CPU)
    assert isinstance(build_neighbours(rows, "auto", **settings_of), ExactNeighbours)
    assert isinstance(build_neighbours(rows, "hnsw", **settings_of), HnswNeighbours)
    monkeypatch.setattr(neighbours_module, "AUTO_EXACT", 99)
    assert isinstance(build_neighbours(rows, "auto", **settings_of), HnswNeighbours)
    assert isinstance(build_neighbours(rows, "exact", **settings_of), ExactNeighbours)


def test_augmented_rows_are_bag_rows_and_their_centroids():
    bags, offsets = (
        np.array([[0, 1], [0.6, 0.8], [1, 0], [-0.8, 0.6]], np.float32),
        np.array([0, 1, 1, 4]),
    )
    rows = augmented_rows(bags, offsets, -np.ones((3, 2), np.float32))
    # Label 1 has no bag row, so that it is found by nothing
    assert rows.label.tolist() == [0, 2, 2, 2, 0, 2] and rows.num_labels == 3
    np.testing.assert_allclose(
        rows.rows, np.concatenate([bags, -np.full((2, 2), np.sqrt(0.5))]), rtol=1e-6
    )
    # Label 0 has no train datapoint, so that its centroid is zero
    some = augmented_rows(bags, offsets, np.array([[0, 0], [1, 1], [1, 1]], np.float32))
    assert some.label.tolist() == [0, 2, 2, 2, 2]
    assert augmented_rows(bags, offsets, np.zeros((0, 2), np.float32)).label.tolist() == [
        0,
        2,
        2,
        2,
    ]


def test_exact_search_arranges_its_rows_when_it_is_asked(tmp_path):
    rows, queries = clustered(50, 2, 8)
    neighbours = ExactNeighbours(rows, CPU)
    neighbours.save(tmp_path)
    assert neighbours._arranged is None
    neighbours.search(queries, 3)
    assert neighbours._arranged is not None


def test_rows_inserted_in_blocks_give_the_graph_of_one_block(tmp_path, monkeypatch):
    rows, _ = clustered(300, 3, 8)
    for name, block in (("once", 10**6), ("blocks", 64)):
        monkeypatch.setattr(hnsw_module, "ADDED", block)
        HnswNeighbours(rows, 8, 40, 40).save(tmp_path / name)
    once, blocks = ((tmp_path / name / "hnsw.bin").read_bytes() for name in ("once", "blocks"))
    assert once == blocks


def test_several_threads_build_a_graph_as_good():
    rows, queries = clustered(1500, 3, 24)
    found, _ = HnswNeighbours(rows, 16, 100, 200, threads=4).search(queries, 10)
    assert recall(found, ExactNeighbours(rows, CPU).search(queries, 10)[0]) >= 0.95
