"""The recall of an approximate search: its figure by a slow loop, and the warning."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mufin.retrieval import recall as recall_module
from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.retrieval.recall import recall_facts, search_recall
from tests.retrieval.test_search import clustered
from tests.support.stages import FINISHED, inside, stage

CPU = torch.device("cpu")
STAGES = ("retrieve", "index")


class Poor:
    """Finds what exact search finds, but for the nearest label and, by turns, others."""

    def __init__(self, rows: LabelRows):
        self.source = rows

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        labels, values = ExactNeighbours(self.source, CPU).search(queries, k + 3)
        lost = np.arange(len(queries)) % 3 + 1
        return tuple(
            np.stack([row[n : n + k] for row, n in zip(part, lost)]) for part in (labels, values)
        )


def slow_recall(search, queries: np.ndarray, k: int) -> float:
    exact = ExactNeighbours(search.source, CPU)
    found, wanted = search.search(queries, k)[0], exact.search(queries, k)[0]
    return 100 * np.mean([np.isin(w, f).mean() for f, w in zip(found, wanted)])


@pytest.mark.parametrize("part", [2**18, 50])
def test_recall_is_that_of_a_loop_over_queries(monkeypatch, part):
    monkeypatch.setattr(recall_module, "PART", part)
    rows, queries = clustered(300, 3, 16)
    for search in (Poor(rows), HnswNeighbours(rows, 2, 4, 4)):
        wanted = slow_recall(search, queries, 10)
        assert abs(search_recall(search, queries, 10, 0, CPU) - wanted) < 0.11
    assert abs(search_recall(Poor(rows), queries, 10, 0, CPU) - 80) < 0.2


def test_a_weak_graph_has_a_low_recall_and_usual_settings_a_high_one(capsys):
    rows, queries = clustered(9000, 2, 24, clusters=300)
    weak, usual = HnswNeighbours(rows, 2, 4, 4), HnswNeighbours(rows, 16, 100, 100)
    assert recall_facts("index", usual, queries, 10, 0, CPU)["search_recall"] > 98
    assert capsys.readouterr().err == ""
    low = recall_facts("index", weak, queries, 10, 0, CPU)["search_recall"]
    said = capsys.readouterr().err
    assert low < 80 and f"finds {low:.1f} % of the 10 nearest labels" in said
    assert said.count("\n") == 1 and len(said) < 300
    assert "index.hnsw.m, ef_construction or ef, or set index.search to exact" in said


def test_recall_is_equal_in_every_run():
    rows, queries = clustered(2000, 2, 16)
    figures = {
        search_recall(HnswNeighbours(rows, 3, 6, 6), np.tile(queries, (3, 1)), 10, 5, CPU)
        for _ in range(3)
    }
    assert len(figures) == 1 and 0 < figures.pop() < 100


def test_equally_near_labels_are_no_loss():
    queries = np.random.default_rng(0).normal(size=(20, 4)).astype("f")
    rows = LabelRows(np.ones((60, 4), "f"), np.arange(60), 60)
    assert search_recall(HnswNeighbours(rows, 8, 40, 40), queries, 3, 0, CPU) == 100


@pytest.mark.parametrize("k", [5, 20])
def test_labels_without_rows_are_not_missed(k):
    rows, queries = clustered(10, 2, 8)
    rows = LabelRows(rows.rows, np.where(rows.label < 3, -1, rows.label), 12)
    assert search_recall(HnswNeighbours(rows, 8, 40, 40), queries, k, 0, CPU) == 100


def test_exact_search_and_no_queries_have_no_recall():
    rows, queries = clustered(10, 2, 8)
    assert search_recall(ExactNeighbours(rows, CPU), queries, 3, 0, CPU) is None
    assert recall_facts("index", ExactNeighbours(rows, CPU), queries, 3, 0, CPU) == {}
    assert search_recall(HnswNeighbours(rows, 8, 40, 40), queries[:0], 3, 0, CPU) is None


def test_the_stages_write_and_say_the_recall_of_their_graph(finished, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    for part in ("data/curated", "data/precomputed", "models/pretrain", "models/finetune"):
        (tmp_path / part).symlink_to(finished / part)
    weak = {"m": 2, "ef_construction": 2, "ef": 2}
    changes = {f"{s}.hnsw.{n}": v for s in STAGES for n, v in weak.items()}
    changes |= {"retrieve.search": "hnsw", "index.search": "hnsw", "retrieve.shortlist": 1}
    figures = []
    for _ in range(2):
        with inside(tmp_path, **FINISHED | changes):
            stage("retrieve").main(tmp_path)
            stage("index").main(tmp_path)
        said = capsys.readouterr().err
        facts = [json.loads((tmp_path / f"metrics/{s}.json").read_text()) for s in STAGES]
        figures.append([f["search_recall"] for f in facts])
        assert figures[-1][0] < 90 and f"finds {figures[-1][0]:.1f} % of the 1 nearest" in said
        assert figures[-1][1] == 100  # so few labels that exact search answers for 100 of them
        assert said.count("warning: ") == 1
    assert figures[0] == figures[1]
