"""Files between stages: published whole or not at all, JSON and CSV, and fingerprints."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mufin.artifacts import files
from mufin.artifacts.files import (
    ArtifactError,
    fingerprint,
    publish,
    read_json,
    write_csv,
    write_json,
)
from tests.support.projects import ROOT


def content(folder: Path) -> dict[str, str]:
    """{path below the folder: its text}, with hidden files, which temporary ones are."""
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def make(path: Path, text: str, folder: bool) -> None:
    if folder:
        (path / "deep").mkdir(parents=True)
        (path / "deep" / text).write_text(text)
    else:
        path.write_text(text)


def made(name: str, text: str, folder: bool) -> dict[str, str]:
    return {f"{name}/deep/{text}" if folder else name: text}


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("name", ["target", "old"])
def test_publishing_replaces_the_old_and_leaves_no_temporary_files(tmp_path, folder, name):
    target = tmp_path / "made" / "by" / name
    for text in ("first", "second"):
        with publish(target) as scratch:
            make(scratch, text, folder)
        assert content(target.parent) == made(name, text, folder)
        assert [p.name for p in target.parent.iterdir()] == [name]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "there before"])
@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_and_no_temporary_files(tmp_path, folder, before, fault):
    target = tmp_path / "target"
    if before:
        make(target, "old", folder)
    with pytest.raises(fault), publish(target) as scratch:
        make(scratch, "new", folder)
        raise fault
    assert content(tmp_path) == (made("target", "old", folder) if before else {})
    assert [p.name for p in tmp_path.iterdir()] == ["target"] * before


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_where_nothing_was_made_the_old_stays(tmp_path, folder):
    make(tmp_path / "target", "old", folder)
    with pytest.raises(FileNotFoundError), publish(tmp_path / "target"):
        pass
    assert content(tmp_path) == made("target", "old", folder)


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_target_is_the_old_until_all_is_written(tmp_path, folder):
    target = tmp_path / "part-0.parquet"
    for before in ({}, made(target.name, "old", folder)):
        if before:
            make(target, "old", folder)
        with publish(target) as scratch:
            make(scratch, "half", folder)
            assert scratch.parent.parent == tmp_path  # beside it: a rename, not a copy
            assert scratch.parent.name.startswith(".")
            assert target.exists() == bool(before)
            shards = list(tmp_path.glob("part-*.parquet"))  # as a reader of shards finds them
            assert shards == ([target] if before else [])
            visible = {k: v for k, v in content(tmp_path).items() if not k.startswith(".")}
            assert visible == before
        assert content(tmp_path) == made(target.name, "half", folder)
        if folder:
            (target / "deep" / "half").unlink()
            (target / "deep").rmdir()
            target.rmdir()
        else:
            target.unlink()


def test_a_process_killed_while_publishing_leaves_the_old(tmp_path):
    (tmp_path / "target").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mufin.artifacts.files import publish\n"
        "with publish(Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "target")], cwd=ROOT, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "target").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["target"]
    with publish(tmp_path / "target") as scratch:
        scratch.write_text("new")
    assert (tmp_path / "target").read_text() == "new"


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
