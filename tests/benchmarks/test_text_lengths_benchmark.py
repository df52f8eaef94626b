"""The benchmark of titles by length: both ways have a figure, and groups have fewer tokens."""

from __future__ import annotations

import json

import pytest

from benchmarks import text_lengths


@pytest.mark.parametrize("layers", [1, 2])
def test_both_ways_have_a_figure(layers, tmp_path, monkeypatch):
    monkeypatch.setattr(text_lengths, "WIDTH", 24)
    out, lengths = tmp_path / "figures.json", tmp_path / "lengths.txt"
    lengths.write_text("4\n40\n7\n")
    text_lengths.main(200, layers, 2, 1, lengths, out)
    groups, padded = json.loads(out.read_text())["rows"].values()
    assert 0 < groups["tokens"] < padded["tokens"] == 200 * 32
    assert groups["ms_median"] > 0 and padded["ms_median"] > 0
