"""The benchmark of the searches: its fixed over-fetch, its recall, and its JSON."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search import _first, _quality, main
from mufin.retrieval.exact import LabelRows


@given(st.lists(st.lists(st.integers(-1, 11), min_size=6, max_size=6)), st.integers(1, 5))
def test_the_first_different_labels_of_fetched_rows(fetched, k):
    label = np.array([3, 0, 0, 1, 1, 1, 2, 2, 3, 3, 0, 2])
    source = LabelRows(np.zeros((12, 2), np.float32), label, 4)
    found = _first(source, np.array(fetched, np.int64).reshape(-1, 6), k)
    for answer, rows in zip(found.tolist(), fetched):
        wanted: list[int] = []
        for row in rows:
            if row >= 0 and label[row] not in wanted and len(wanted) < k:
                wanted.append(int(label[row]))
        assert answer == wanted + [-1] * (k - len(wanted))


def test_recall_and_short_answers_are_counted():
    best, found = np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, -1]])
    assert _quality(best, found, 2) == {"recall": 0.75, "short": 0.5}


def test_all_searches_are_measured_in_one_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    out = tmp_path / "search.json"
    main(labels=60, rows=3, dim=8, queries=5, k=10, ef_construction=40, ef=40, repeats=1, out=out)
    rows = json.loads(out.read_text())["rows"]
    assert list(rows)[:2] == ["exact", "hnsw"] and rows["exact"]["recall"] == 1
    assert all(figures["recall"] > 0.8 for figures in rows.values())
    names = {"build_s", "memory_mb", "queries_per_s", "recall", "short"}
    assert all(figures.keys() == names for figures in rows.values())
