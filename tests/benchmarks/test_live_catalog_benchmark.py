"""The benchmark of live products runs, and its figures are of what it says."""

from __future__ import annotations

import json

from benchmarks.live_catalog import main


def test_figures_of_a_small_live_catalog_are_written(tmp_path):
    main(labels=7000, dim=16, rows=4, folder=tmp_path, out=tmp_path / "figures.json")
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert all(
        value > 0 for name, row in rows.items() if "memory" not in name for value in row.values()
    )
    assert rows["search: settle"]["rows"] == 7000 * 4 - 20_000
    assert rows["search: query, rows in the graph"]["recall"] > 0.9
    compacted = rows["commit: compact after deletions"]
    assert compacted["megabytes_after"] < compacted["megabytes_before"] / 2
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
