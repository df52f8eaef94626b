"""The benchmark of decoding: how many levels of 255 the pixels differ from the plain way's."""

from __future__ import annotations

import json

from benchmarks.decoding import main


def test_the_benchmark_reports_the_greatest_difference(tmp_path):
    out = tmp_path / "decoding.json"
    main(sides=[90, 300], targets=[48], pictures=2, repeats=1, out=out)
    rows = json.loads(out.read_text())["rows"]
    assert rows["90 px to 48"]["largest_difference"] == 0  # small: resized by Pillow
    assert rows["300 px to 48"]["largest_difference"] <= 1
    assert rows["300 px to 48"]["ours_per_s"] > 0
