"""The label index: which label a product is, and its files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.errors import ArtifactError
from mufin.nn.embedding import joint_rows, joint_vectors, unit_rows
from mufin.ranking.label_index import label_rows, load_index, save_index
from mufin.retrieval.exact import ExactNeighbours
from mufin.retrieval.hnsw import HnswNeighbours
from tests.support.artifacts import sealed
from tests.support.indexes import CPU, LABELS, TITLES, label_index, networks

INDEX = label_index(networks())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(0, 12), st.integers(0, 10**6))
def test_labels_of_is_a_loop_over_products(labels, n, seed):
    rng = np.random.default_rng(seed)
    products, asked = rng.permutation(25)[:labels], rng.integers(0, 25, n)
    found = replace(INDEX, products=products).labels_of(asked)
    slow = [[i for i, p in enumerate(products.tolist()) if p == product] for product in asked]
    assert [found[i].tolist() for i in range(n)] == slow and len(found) == n


def test_the_log_frequency_counts_train_datapoints():
    index = replace(INDEX, frequency=np.array([0, 1, 7]))
    assert index.log_frequency.dtype == np.float32
    assert index.log_frequency == pytest.approx(np.log([1, 2, 8]))
    assert len(INDEX) == LABELS


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("ridge", [False, True])
@pytest.mark.parametrize("search", ["exact", "hnsw"])
def test_a_saved_index_loads_as_it_was(search, ridge, votes, tmp_path):
    index = label_index(networks(), search, ridge, votes)
    save_index(index, tmp_path / "index")
    again = load_index(tmp_path / "index", CPU)
    assert isinstance(again.neighbours, {"exact": ExactNeighbours, "hnsw": HnswNeighbours}[search])
    for name in ("centroids", "products", "frequency"):
        assert np.array_equal(getattr(again, name), getattr(index, name)), name
    for ours, theirs in zip(again.labels, index.labels, strict=True):
        for name in ("rows", "modality", "offsets", "vectors"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for ours, theirs in zip(again.classifiers, index.classifiers, strict=True):
        assert np.array_equal(ours, theirs)
    queries = index.neighbours.source.rows[:9]
    pairs = zip(again.neighbours.search(queries, 5), index.neighbours.search(queries, 5))
    assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)
    assert (again.ridge is not None) == ridge
    if ridge:
        assert np.array_equal(again.ridge.scores(TITLES), index.ridge.scores(TITLES))
    assert (again.votes is not None) == votes
    if votes:
        queries, ids = index.votes.search.source.rows[:9], np.tile(np.arange(LABELS), (9, 1))
        found = again.votes.scores(queries, ids)
        assert found.any() and np.array_equal(found, index.votes.scores(queries, ids))


def test_a_missing_index_is_one_sentence(tmp_path):
    with pytest.raises(ArtifactError, match=r"contents.json is missing"):
        load_index(tmp_path, CPU)


@pytest.mark.parametrize("content", [b"", b"no arrays", b"\x08" * 99])
def test_a_broken_index_is_one_sentence(content, tmp_path):
    save_index(INDEX, tmp_path / "index")
    path = tmp_path / "index/index.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="index.safetensors is damaged"):
        load_index(tmp_path / "index", CPU)
    sealed(tmp_path / "index")  # as a hostile writer would
    with pytest.raises(ArtifactError, match=r"cannot be read .*; run `dvc repro index`$") as error:
        load_index(tmp_path / "index", CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["bag", "vec"])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_label_rows_have_the_bits_of_joined_arrays(kind, data):
    labels, mu = INDEX.labels, INDEX.centroids.copy()
    mu[data.draw(st.lists(st.integers(0, LABELS - 1)))] = 0  # labels without train datapoints
    sizes, released = labels[0].sizes, []
    own = np.flatnonzero((sizes > 0) & mu.any(1))
    label, every = np.flatnonzero(sizes > 0), joint_vectors(labels)[sizes > 0]
    if kind == "bag":
        label = np.concatenate([np.repeat(np.arange(LABELS), sizes), own])
        every = np.concatenate([joint_rows(labels), unit_rows(mu[own])])
    made = label_rows(kind, labels, mu, lambda: released.append(1))
    assert made.rows.shape == every.shape and np.array_equal(made.label, label)
    assert np.array_equal(np.asarray(made.rows), every)
    some = np.array(data.draw(st.lists(st.integers(0, len(every) - 1), max_size=9)), np.int64)
    assert np.array_equal(made.rows[some], every[some])
    assert np.array_equal(made.rows[2:9], every[2:9]) and not released


def test_many_made_rows_release_their_sources(monkeypatch):
    monkeypatch.setattr("mufin.retrieval.made_rows.MANY", 3)
    released = []
    made = label_rows("bag", INDEX.labels, INDEX.centroids, lambda: released.append(1))
    made.rows[np.arange(3)]
    assert not released
    made.rows[np.arange(4)]
    assert released
