"""Ids in a normal form, and ids that nearly match one."""

from __future__ import annotations

import polars as pl
import pytest

from mufin.corpus.matching import MATCHES, Unknown, difference, normal


@pytest.mark.parametrize(
    ("matches", "a", "b"),
    [
        (["case"], "Ab-É", "aB-é"),
        (["blanks"], "A 1\t2", "A12"),
        (["zeros"], "00015", "15"),
        (["zeros"], "000", "0"),
        (["unicode"], "Cafe\u0301", "Caf\u00e9"),
        (["unicode", "case"], "ＡＢ１", "ab1"),
        (["blanks", "zeros"], " 0 07", "7"),
    ],
)
def test_a_match_leaves_out_one_difference(matches, a, b):
    same = normal(pl.Series([a, b]), matches)
    assert same[0] == same[1]
    assert difference(a, b) == sorted(matches, key=MATCHES.index)
    for rest in (set(MATCHES) - {match} for match in matches):
        other = normal(pl.Series([a, b]), rest)
        assert other[0] != other[1]


def test_zeros_inside_an_id_and_before_letters_stay():
    texts = ["A007", "100", "0x", "0", ""]
    assert normal(pl.Series(texts), ["zeros"]).to_list() == texts


def test_blanks_at_the_ends_never_count():
    assert normal(pl.Series([" a b ", None])).to_list() == ["a b", None]


def test_unknown_ids_are_counted_with_two_examples():
    asked = []

    def known():
        asked.append(1)
        yield pl.Series(["15", "a"])
        yield pl.Series(["B c"])

    unknown = Unknown(known)
    unknown.add(pl.Series([], dtype=pl.String))
    assert not asked  # an id that is known costs nothing
    unknown.add(pl.Series(["x", "x", "00015"]))
    unknown.add(pl.Series(["bC", "00015", "y"]))
    assert (unknown.count, unknown.near) == (6, 3)
    assert unknown.example() == "'x', '00015'"
    assert unknown.near_example == (
        "'00015' is not '15': download.match_ids: [zeros] would join them"
    )


def test_a_long_id_is_cut_in_its_example():
    unknown = Unknown(lambda: iter([]))
    unknown.add(pl.Series(["z" * 10_000]))
    assert len(unknown.example()) < 50 and not unknown.near
