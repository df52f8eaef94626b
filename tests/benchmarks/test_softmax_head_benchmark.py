"""The benchmark of the softmax over all labels: equal losses, and a figure for each way."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import softmax_head


def test_both_ways_have_one_loss(monkeypatch):
    monkeypatch.setattr(softmax_head, "BLOCK", 64)
    ways = softmax_head._ways(200, 6, 8, torch.device("cpu"))
    assert ways["plain"]() == pytest.approx(ways["in blocks"](), rel=1e-5)


def test_each_number_of_labels_has_its_figures(tmp_path):
    out = tmp_path / "figures.json"
    softmax_head.main([100, 5000], datapoints=8, dim=8, repeats=1, plain_gb=1e-4, out=out)
    rows = json.loads(out.read_text())["rows"]
    names = ["in blocks, 100 labels", "plain, 100 labels", "in blocks, 5000 labels"]
    assert list(rows) == names and all(row["ms_median"] > 0 for row in rows.values())
