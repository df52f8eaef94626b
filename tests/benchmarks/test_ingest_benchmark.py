"""The benchmark of ingest, small: download reads its dump, and a kill costs few requests."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ingest
from mufin.catalogs.forms import amazon
from mufin.catalogs.notes import Notes


def test_the_invented_dump_is_one_of_2018(tmp_path):
    path = tmp_path / "dump.json.gz"
    size = ingest.write_dump(path, 40)
    found = list(amazon.products_2018([path], Notes()))
    assert [p.uid for p in found] == [f"B{i:09d}" for i in range(40)]
    assert size / 40 > 2000 and ingest._plain(path) == 40
    assert sum(len(p.related) for p in found) > 40 and found[3].images[0].startswith("https://")
    again = Path(tmp_path / "again.json.gz")
    ingest.write_dump(again, 40)
    assert list(amazon.products_2018([again], Notes())) == found


def test_short_lines_are_of_2018_too(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "BLOCK", 16)
    path = tmp_path / "dump.json.gz"
    size = ingest.write_short_dump(path, 40)
    found = list(amazon.products_2018([path], Notes()))
    assert [p.uid for p in found] == [f"B{i:09d}" for i in range(40)]
    assert 200 < size / 40 < 400 and ingest._plain(path) == 40
    assert sum(len(p.related) for p in found) > 40
    assert found[3].images == ["https://images.example/I/0000000003.jpg"]


def test_a_killed_fetch_asks_few_urls_twice(tmp_path):
    figures = ingest._fetched(tmp_path / "urls", 300)
    assert 0 <= figures["fetch, continued"]["asked_twice"] < 300
    for run in ("fetch, killed", "fetch, continued"):
        assert figures[run]["memory_mb"] > 50 and figures[run]["processor_ms"] > 0
    assert sum(figures[run]["requests"] for run in figures if "fetch" in run) >= 300
    assert figures["requests"]["requests"] == 300 and figures["requests"]["processor_ms"] > 0
