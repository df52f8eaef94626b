"""JSON and CSV files, and fingerprints."""

from __future__ import annotations

import csv
import os

import pytest

from mufin.artifacts import files
from mufin.artifacts.files import (
    ArtifactError,
    fingerprint,
    read_json,
    write_csv,
    write_json,
)


def test_json_comes_back_and_nan_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.json"
    with pytest.raises(ArtifactError, match="m.json is missing; run `dvc repro`"):
        read_json(path)
    write_json({"a": [1.5, None, "é"]}, path)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json({"a": value}, path)
    assert read_json(path) == {"a": [1.5, None, "é"]}
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]
    path.write_text("{")
    with pytest.raises(ArtifactError, match="m.json is not JSON .*delete it and run `dvc repro`"):
        read_json(path)


def test_csv_comes_back_and_errors_leave_the_old(tmp_path):
    path = tmp_path / "made" / "m.csv"
    rows = [('a, "b"', 1, 2.5), ("two\nlines", -1, None)]
    write_csv(("name", "count", "share"), iter(rows), path)
    with open(path, newline="") as file:
        back = list(csv.reader(file))
    assert back == [["name", "count", "share"], ['a, "b"', "1", "2.5"], ["two\nlines", "-1", ""]]

    def failing():
        yield ("new", 0, 0)
        raise ValueError

    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_csv(("name", "count", "share"), failing(), path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["m.csv"]


def test_a_fingerprint_covers_settings_inputs_and_code(tmp_path):
    data, file, code = tmp_path / "data", tmp_path / "input", tmp_path / "stage.py"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "part").write_text("a")
    file.write_text("b")
    code.write_text("c")
    seen = [fingerprint({"rate": 1}, [data, file], [code])]
    assert len(seen[0]) == 16 and set(seen[0]) <= set("0123456789abcdef")
    for path in (data / "deep" / "part", file, code):
        path.write_text(path.read_text().upper())  # the same size
        os.utime(path, (1, 1))
        seen.append(fingerprint({"rate": 1}, [data, file], [code]))
    seen.append(fingerprint({"rate": 2}, [data, file], [code]))
    (data / "deep" / "another").write_text("")
    seen.append(fingerprint({"rate": 2}, [data, file], [code]))
    assert len(set(seen)) == len(seen) == 6


def test_a_fingerprint_ignores_place_and_small_files_times(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        for file in ("b", "a") if name == "here" else ("a", "b"):
            (tmp_path / name / file).write_text(file)
    os.utime(tmp_path / "here" / "a", (1, 1))
    assert fingerprint(1, [tmp_path / "here"], []) == fingerprint(1, [tmp_path / "there"], [])


def test_a_fingerprint_knows_large_files_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGE", 10)
    file = tmp_path / "activations"
    file.write_text("a" * 20)
    os.utime(file, (1, 1))
    before = fingerprint(1, [file], [])
    file.write_text("b" * 20)
    os.utime(file, (1, 1))
    assert fingerprint(1, [file], []) == before
    os.utime(file, (2, 2))
    later = fingerprint(1, [file], [])
    file.write_text("b" * 21)
    os.utime(file, (2, 2))
    assert len({before, later, fingerprint(1, [file], [])}) == 3
