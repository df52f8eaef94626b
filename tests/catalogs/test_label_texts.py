"""Labels that are no products, from files of any form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.label_texts import label_texts
from mufin.catalogs.notes import Notes
from mufin.errors import MufinError


def read(path: Path, *columns: str, prefix: str = "", share: float = 0.0) -> list[tuple[str, str]]:
    notes = Notes()
    names = columns or ("id", "text")
    return list(label_texts([path], names, prefix, notes, BadRows(notes, share)))


def test_labels_of_any_form_get_the_prefix(tmp_path):
    rows = [{"id": 7, "text": "red shoes"}, {"id": "x", "text": None}]
    (tmp_path / "a.json").write_text(json.dumps({"queries": rows}))
    (tmp_path / "a.csv").write_text("text;id\nred shoes;7\n;x\n")
    for name in ("a.json", "a.csv"):
        assert read(tmp_path / name, prefix="q:") == [("q:7", "red shoes"), ("q:x", "")]


def test_a_nested_column_can_hold_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "query": {"en": "shoes"}}\n')
    assert read(tmp_path / "a.jsonl", "id", "query.en") == [("1", "shoes")]


@pytest.mark.parametrize("column", ["id", "text"])
def test_a_missing_column_names_its_setting(tmp_path, column):
    names = {"id": "id", "text": "text"} | {column: "nothing"}
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    with pytest.raises(MufinError, match=rf"no column 'nothing' \(download.labels.{column}\)"):
        read(tmp_path / "a.csv", *names.values())


def test_a_bad_row_stops_or_is_dropped(tmp_path):
    lines = ['{"id": "1", "text": "a"}', '{"id": [2], "text": "b"}', '{"id": "3", "text": "c"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(MufinError, match="line 2"):
        read(tmp_path / "a.jsonl")
    assert read(tmp_path / "a.jsonl", share=0.5) == [("1", "a"), ("3", "c")]
    with pytest.raises(MufinError, match="1 of 3 rows are bad"):
        read(tmp_path / "a.jsonl", share=0.1)
