"""The benchmark of nearest titles: both ways find the same products, and both have a figure."""

from __future__ import annotations

import json

from benchmarks import nearest_titles


def test_both_ways_have_a_figure(tmp_path):
    out = tmp_path / "figures.json"
    nearest_titles.main(train=400, asked=20, repeats=1, out=out)
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["rare words first", "whole sparse products"]
    assert all(row["ns_per_pair"] > 0 for row in rows.values())
