"""The benchmark of decoding: pixels equal the plain way's where no draft mode is used."""

from __future__ import annotations

import json

from benchmarks.decoding import main


def test_pixels_of_a_jpeg_below_twice_the_target_are_equal(tmp_path):
    out = tmp_path / "decoding.json"
    main(sides=[90], targets=[48], pictures=2, repeats=1, out=out)
    row = json.loads(out.read_text())["rows"]["90 px to 48"]
    assert row["largest_difference"] == 0 and row["ours_per_s"] > 0
