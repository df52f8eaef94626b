"""The benchmark of titles by length: all ways have a figure, and groups have fewer tokens."""

from __future__ import annotations

import json

import pytest

from benchmarks import text_lengths


@pytest.mark.parametrize("layers", [1, 2])
def test_all_ways_have_a_figure(layers, tmp_path, monkeypatch):
    monkeypatch.setattr(text_lengths, "WIDTH", 24)
    out, lengths = tmp_path / "figures.json", tmp_path / "lengths.txt"
    lengths.write_text("4\n40\n7\n")
    text_lengths.main(200, layers, 2, 1, lengths, 3, out)
    groups, padded, fused, fused_padded = json.loads(out.read_text())["rows"].values()
    assert 0 < groups["tokens"] < padded["tokens"] == 200 * 32
    assert groups["tokens"] < fused["tokens"] < fused_padded["tokens"] == 200 * 35
    assert all(row["ms_median"] > 0 for row in (groups, padded, fused, fused_padded))
