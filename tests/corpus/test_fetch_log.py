"""The log of fetched pictures: what is acknowledged is on the disk, and a torn log is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mufin.corpus.fetch_log import FetchLog
from mufin.corpus.reasons import GIVEN_UP

RECORDS = [
    ("a", b"one\nline", ""),
    ("b", b"", "HTTP 500"),
    ("c\n{", b'{"url": "x"}\n', ""),
    ("d", b"last", ""),
]


def done(log: FetchLog) -> set[str]:
    return {reference for reference in ("a", "b", "c\n{", "d", "x") if log.done(reference)}


def written(path: Path) -> bytes:
    log = FetchLog(path)
    log.add(RECORDS)
    log.close()
    return path.read_bytes()


def test_a_torn_log_keeps_its_whole_records(tmp_path):
    path = tmp_path / "fetched.log"
    whole = written(path)
    start = whole.index(b'{"url": "d"')
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        log = FetchLog(path)
        assert done(log) == {"a", "c\n{"} and path.stat().st_size == start
        with log.reader() as record_of:
            assert [record_of(r) for r in ("a", "b", "c\n{")] == RECORDS[:3]
        log.add(RECORDS[3:])
        log.close()
        assert path.read_bytes() == whole


def test_failed_references_are_asked_again_in_the_next_run(tmp_path):
    path = tmp_path / "fetched.log"
    written(path)
    log = FetchLog(path)
    assert not log.done("b")
    log.add([("b", b"mended", "")])
    log.close()
    again = FetchLog(path)
    assert again.done("b")
    with again.reader() as record_of:
        assert [record_of(r) for r in ("d", "b", "no such", "a")] == [
            RECORDS[3],
            ("b", b"mended", ""),
            None,
            RECORDS[0],
        ]
    again.close()


@pytest.mark.parametrize(
    "reason, lasts",
    [
        *((r, True) for r in ("HTTP 404", "HTTP 410", "not a picture", "too many bytes")),
        *((r, True) for r in ("PDF is not read", "not a URL", "too many redirects")),
        *((r, False) for r in ("HTTP 403", "HTTP 503", "timed out", "host name not found")),
        *((r, False) for r in ("HTML instead of a picture", "empty", GIVEN_UP)),
        ("HEIC is not read without pillow-heif", False),
    ],
)
def test_lasting_failures_are_remembered_under_the_same_settings(tmp_path, reason, lasts):
    path = tmp_path / "fetched.log"
    log = FetchLog(path, "a")
    log.add([("x", b"", reason)])
    log.close()
    for settings in ("a", "b", "a"):
        log = FetchLog(path, settings)
        assert log.done("x") == (lasts and settings == "a")
        log.close()


def test_a_record_is_done_after_file_and_folder_are_on_disk(tmp_path, monkeypatch):
    path, steps = tmp_path / "fetched.log", []
    real = os.fsync

    def fsync(number: int) -> None:
        name = os.readlink(f"/proc/self/fd/{number}")
        steps.append((Path(name).name, path.stat().st_size, done(log) if logs else None))
        real(number)

    logs: list[FetchLog] = []
    monkeypatch.setattr(os, "fsync", fsync)
    log = FetchLog(path)
    logs.append(log)
    assert steps == [(tmp_path.name, 0, None)]  # the name of the new file
    log.add(RECORDS)
    # one wait for all of them, with all bytes handed over and nothing acknowledged before it
    assert steps[1:] == [(path.name, path.stat().st_size, set())]
    assert done(log) == {reference for reference, _, _ in RECORDS}
    log.close()


def test_nothing_is_done_if_the_disk_fails(tmp_path, monkeypatch):
    log = FetchLog(tmp_path / "fetched.log")

    def fsync(number: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        log.add(RECORDS)
    assert not done(log) and not len(log.records)


def test_a_record_with_changed_bytes_is_cut_off(tmp_path):
    path = tmp_path / "fetched.log"
    whole = written(path)
    at = whole.rindex(b"last")
    path.write_bytes(whole[:at] + bytes(4) + whole[at + 4 :])  # as a power loss may leave it
    assert done(FetchLog(path)) == {"a", "c\n{"}


def test_a_log_without_checksums_is_still_read(tmp_path):
    path = tmp_path / "fetched.log"
    path.write_bytes(b'{"url": "a", "reason": "", "size": 3}\nabc\n')
    assert done(FetchLog(path)) == {"a"}


def test_a_reference_not_asked_is_asked_again_in_this_run(tmp_path):
    log = FetchLog(tmp_path / "fetched.log")
    log.add([("a", b"", GIVEN_UP), ("b", b"", "HTTP 404")])
    assert done(log) == {"b"}
    with log.reader() as record_of:
        assert record_of("a") == ("a", b"", GIVEN_UP)
