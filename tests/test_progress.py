"""Progress: in a log lines with unit, total, start and what is left; on a terminal a bar."""

from __future__ import annotations

import sys

import pytest

from mufin import progress as module
from mufin.progress import progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds that pass between two looks at the time; a test may change them."""
    step, now = [10.0], [0.0]

    def monotonic() -> float:
        now[0] += step[0]
        return now[0]

    monkeypatch.setattr(module.time, "monotonic", monotonic)
    return step


def test_lines_have_unit_total_and_seconds(clock, capsys):
    assert list(progress("abcd", "decode", "pictures")) == list("abcd")
    assert capsys.readouterr().err.splitlines() == [
        "decode: 1 of 4 pictures after 20 s, 60 s left",
        "decode: 3 of 4 pictures after 40 s, 13 s left",
    ]


def test_a_resumed_run_counts_on_and_says_from_where(clock, capsys):
    assert list(progress(range(12, 15), "finetune", "epochs", start=12)) == [12, 13, 14]
    assert capsys.readouterr().err == (
        "finetune: 13 of 15 epochs after 20 s, 40 s left (from 12)\n"
    )


def test_a_total_may_be_given_or_unknown(clock, capsys):
    assert list(progress(iter("abc"), "fetch", "pictures", total=9)) == list("abc")
    assert list(progress(iter("abc"), "fetch", "pictures")) == list("abc")
    assert capsys.readouterr().err.splitlines() == [
        "fetch: 1 of 9 pictures after 20 s, 160 s left",
        "fetch: 1 pictures after 20 s",
    ]


def test_what_is_left_is_never_negative_nor_without_a_first_item(clock, capsys):
    list(progress(iter("abcd"), "fetch", "pictures", total=2))
    assert [line.split(", ")[1:] for line in capsys.readouterr().err.splitlines()] == [
        ["20 s left"],
        ["0 s left"],
    ]
    clock[0] = 40.0
    list(progress("ab", "fetch", "pictures"))
    assert capsys.readouterr().err.splitlines()[0] == "fetch: 0 of 2 pictures after 40 s"


def test_what_ends_soon_prints_nothing(clock, capsys):
    clock[0] = 1.0
    assert list(progress(range(14), "embed", "batches")) == list(range(14))
    assert capsys.readouterr() == ("", "")


def test_every_sets_the_seconds_between_lines(clock, capsys):
    list(progress(range(9), "pretrain", "epochs", every=35.0))
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["3", "7"]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(5), "index", "rows", start=2)) == list(range(5))
    bar = capsys.readouterr().err
    assert "index" in bar and "2/7" in bar and " rows/s" in bar
