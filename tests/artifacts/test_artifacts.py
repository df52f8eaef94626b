"""Files between the stages: published whole or not at all, of their schema, known by a fingerprint; ragged rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts import tables as artifacts
from mufin.artifacts.curated import read_split
from mufin.artifacts.files import ArtifactError, fingerprint, publish, read_json
from mufin.artifacts.tables import SCHEMAS, read_table, write_table
from mufin.ragged import Lists, is_in

ROOT = Path(__file__).parents[2]
ROWS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8)


def content(folder: Path) -> dict[str, str]:
    """{path below the folder: its text}: also hidden files, so also litter."""
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
def test_what_is_published_replaces_the_old_whole_and_leaves_no_litter(tmp_path, folder, name):
    target = tmp_path / "made" / "by" / name
    for text in ("first", "second"):
        with publish(target) as scratch:
            make(scratch, text, folder)
        assert content(target.parent) == made(name, text, folder)
        assert [p.name for p in target.parent.iterdir()] == [name]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "there before"])
@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_fault_inside_leaves_the_old_as_it_was_and_no_litter(tmp_path, folder, before, fault):
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
            assert list(tmp_path.glob("part-*.parquet")) == [target] * bool(
                before
            )  # what a reader of shards sees
            assert (
                not before
                or {k: v for k, v in content(tmp_path).items() if not k.startswith(".")} == before
            )
        assert content(tmp_path) == made(target.name, "half", folder)
        if folder:
            (target / "deep" / "half").unlink()
            (target / "deep").rmdir()
            target.rmdir()
        else:
            target.unlink()


def test_a_process_killed_halfway_leaves_the_old_and_the_next_run_publishes(tmp_path):
    (tmp_path / "target").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.artifacts import publish\n"
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


SOME = {
    pa.string(): ["a", ""],
    pa.int32(): [3, 0],
    pa.binary(): [b"\0", b""],
    pa.list_(pa.string()): [["x", "y"], []],
    pa.list_(pa.int32()): [[2, 1], []],
    pa.list_(pa.float32()): [[0.5], []],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_table_comes_back_as_it_was_written(tmp_path, schema):
    columns = {f.name: SOME[f.type] for f in SCHEMAS[schema]}
    write_table(
        columns | {"more": [1, 2]}, schema, tmp_path / "t.parquet"
    )  # what the schema lacks is left out
    table = read_table(tmp_path / "t.parquet", schema)
    assert table.schema.equals(SCHEMAS[schema]) and table.to_pydict() == columns
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    name = SCHEMAS[schema].names[-1]
    assert read_table(tmp_path / "t.parquet", schema, [name]).column_names == [name]
    batches = list(artifacts.table_batches(tmp_path / "t.parquet", schema, [name], 1))
    assert len(batches) == 2 and pa.Table.from_batches(batches).to_pydict() == {name: columns[name]}


@pytest.mark.parametrize(
    "change",
    [
        {"product": [1, 2**40]},
        {"product": np.array([1.5, 2])},
        {"product": ["a", "b"]},
        {"labels": [1, 2]},
        {"product": [1]},
        "excluded",
    ],
    ids=["too large", "fractions", "strings", "no lists", "too short", "one left out"],
)
def test_columns_of_another_form_are_not_written_and_the_old_table_stays(tmp_path, change):
    columns = {"product": [1, 2], "labels": [[1], []], "excluded": [[], [0]]}
    write_table(columns, "split", tmp_path / "t.parquet")
    bad = (
        {n: c for n, c in columns.items() if n != change}
        if isinstance(change, str)
        else columns | change
    )
    with pytest.raises((KeyError, pa.ArrowInvalid, pa.ArrowTypeError)):
        write_table(bad, "split", tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", "split").to_pydict() == columns
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def all_readers(path: Path, schema: str):
    return [
        lambda: read_table(path, schema),
        lambda: read_table(path, schema, ["labels"]),
        lambda: list(artifacts.table_batches(path, schema, ["product", "labels"])),
        lambda: read_split(path),
    ]


@pytest.mark.parametrize("reader", range(4))
@pytest.mark.parametrize(
    "labels, said",
    [
        (None, "labels of list<.*int32>"),
        (pa.array([1, 2]), "labels of list<.*int32>"),
        (pa.array([["a"], []]), "labels of list<.*int32>"),
        (pa.array([[1], []], pa.list_(pa.int64())), "labels of list<.*int32>"),
    ],
    ids=["missing", "numbers", "strings", "of 64 bits"],
)
def test_a_table_of_another_form_is_an_error_that_names_file_and_column(
    tmp_path, reader, labels, said
):
    path = tmp_path / "train.parquet"
    columns = {
        "product": pa.array([1, 2], pa.int32()),
        "excluded": pa.array([[], []], pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(columns | ({} if labels is None else {"labels": labels})), path)
    with pytest.raises(
        ArtifactError, match=f"train.parquet has no column {said}; .*run `dvc repro`$"
    ):
        all_readers(path, "split")[reader]()


@pytest.mark.parametrize("reader", range(4))
def test_a_table_that_is_missing_or_broken_is_an_error_that_names_the_file_and_the_remedy(
    tmp_path, reader
):
    path = tmp_path / "train.parquet"
    with pytest.raises(ArtifactError, match="train.parquet is missing; run `dvc repro`"):
        all_readers(path, "split")[reader]()
    write_table({"product": [1, 2], "labels": [[1], []], "excluded": [[], [0]]}, "split", path)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[:-20], b"PAR1" + b"x" * 99 + b"PAR1"):
        path.write_bytes(broken)
        with pytest.raises(
            ArtifactError,
            match="(?s)train.parquet cannot be read .*; delete it and run `dvc repro`$",
        ):
            all_readers(path, "split")[reader]()
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError, match="(?s)train.parquet cannot be read"):
        all_readers(path, "split")[reader]()


def test_splits_and_labels_come_back_as_arrays(tmp_path):
    write_table(
        {"product": [4, 2], "labels": [[1, 0], []], "excluded": [[], [3]]},
        "split",
        tmp_path / "s.parquet",
    )
    split = read_split(tmp_path / "s.parquet")
    assert len(split) == 2 and split.product.dtype == np.int64 and split.product.tolist() == [4, 2]
    assert [split.labels[i].tolist() for i in range(2)] == [[1, 0], []]
    assert [split.excluded[i].tolist() for i in range(2)] == [[], [3]]
    write_table({"product": np.array([7, 5])}, "labels", tmp_path / "l.parquet")
    assert artifacts.read_labels(tmp_path / "l.parquet").tolist() == [7, 5]
    write_table(
        {"product": np.zeros(0, int), "labels": [], "excluded": []}, "split", tmp_path / "s.parquet"
    )
    assert (
        len(read_split(tmp_path / "s.parquet"))
        == len(read_split(tmp_path / "s.parquet").labels)
        == 0
    )


def test_json_comes_back_and_what_json_cannot_hold_leaves_the_old(tmp_path):
    path = tmp_path / "m.json"
    with pytest.raises(ArtifactError, match="m.json is missing; run `dvc repro`"):
        read_json(path)
    artifacts.write_json({"a": [1.5, None, "é"]}, path)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            artifacts.write_json({"a": value}, path)
    assert read_json(path) == {"a": [1.5, None, "é"]} and [p.name for p in tmp_path.iterdir()] == [
        "m.json"
    ]
    path.write_text("{")
    with pytest.raises(ArtifactError, match="m.json is not JSON .*delete it and run `dvc repro`"):
        read_json(path)


def test_a_fingerprint_changes_with_settings_with_content_of_inputs_and_with_code(tmp_path):
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


def test_a_fingerprint_does_not_change_with_times_of_small_files_or_the_place_of_the_folder(
    tmp_path,
):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        for file in ("b", "a") if name == "here" else ("a", "b"):
            (tmp_path / name / file).write_text(file)
    os.utime(tmp_path / "here" / "a", (1, 1))
    assert fingerprint(1, [tmp_path / "here"], []) == fingerprint(1, [tmp_path / "there"], [])


def test_a_large_file_counts_in_a_fingerprint_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "LARGE", 10)
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


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_ragged_rows_are_the_rows_they_were_made_of(rows):
    lists = Lists.of_rows(rows)
    assert len(lists) == len(rows) and lists.offsets.dtype == lists.values.dtype == np.int64
    assert [lists[i].tolist() for i in range(len(lists))] == rows
    assert lists.rows().tolist() == [i for i, row in enumerate(rows) for _ in row]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_transposed_row_v_holds_the_rows_that_hold_v_in_ascending_order(rows):
    flipped = Lists.of_rows(rows).transpose(12)
    assert len(flipped) == 12
    assert [flipped[v].tolist() for v in range(12)] == [
        [i for i, row in enumerate(rows) for x in row if x == v] for v in range(12)
    ]


@settings(max_examples=60, deadline=None)
@given(ROWS.filter(len), st.lists(st.integers(0, 99), max_size=12))
def test_taken_rows_come_in_the_order_asked_repeats_allowed_and_positions_say_where_they_lie(
    rows, index
):
    index = np.array([i % len(rows) for i in index], np.int64)
    lists = Lists.of_rows(rows)
    taken = lists.take(index)
    assert [taken[j].tolist() for j in range(len(taken))] == [rows[i] for i in index]
    positions, offsets = lists.positions(index)
    starts = np.cumsum([0, *map(len, rows)])
    assert positions.tolist() == [starts[i] + j for i in index for j in range(len(rows[i]))]
    assert offsets.tolist() == np.cumsum([0, *(len(rows[i]) for i in index)]).tolist()


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 8), st.integers(0, 8))
def test_a_column_of_several_chunks_or_a_slice_of_one_makes_the_same_rows(rows, start, cut):
    array = Lists.of_rows(rows).to_arrow(pa.int32())
    assert array.type == pa.list_(pa.int32()) and array.to_pylist() == rows
    column = pa.chunked_array([array[:cut], array[cut:]], pa.list_(pa.int32()))
    for wanted, found in (
        (rows, Lists.of_column(column)),
        (rows[start:], Lists.of_column(column[start:])),
        ([], Lists.of_column(pa.chunked_array([], pa.list_(pa.int32())))),
    ):
        assert found.offsets[0] == 0 and [found[i].tolist() for i in range(len(found))] == wanted


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 4), st.integers(0, 10**6))
def test_an_id_is_in_a_row_where_a_loop_finds_it_and_never_below_zero(rows, width, seed):
    ids = np.random.default_rng(seed).integers(-2, 14, (len(rows), width))
    found = is_in(ids, Lists.of_rows(rows))
    assert found.shape == ids.shape
    assert found.tolist() == [
        [bool(x >= 0 and x in row) for x in line] for line, row in zip(ids.tolist(), rows)
    ]
