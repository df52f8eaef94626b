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


def test_both_steps_follow_nearly_one_loss():
    plain, half = (
        softmax_head.head_step(half, 200, 6, 8, torch.device("cpu")) for half in (False, True)
    )
    assert [half() for _ in range(5)] == pytest.approx([plain() for _ in range(5)], rel=0.01)


def test_each_number_of_labels_has_its_figures(tmp_path):
    out = tmp_path / "figures.json"
    softmax_head.main([100, 5000], datapoints=8, dim=8, repeats=1, plain_gb=1e-4, out=out)
    rows = json.loads(out.read_text())["rows"]
    steps = [f"step with update, eta in {p}, 100 labels" for p in ("fp32", "bf16")]
    names = ["in blocks, 100 labels", "plain, 100 labels", *steps, "in blocks, 5000 labels"]
    assert list(rows)[:5] == names and len(rows) == 7
    assert all(row["ms_median"] > 0 for row in rows.values())
