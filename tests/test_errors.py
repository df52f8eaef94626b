"""Texts of errors: short, on one line, whatever the value was."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.errors import LONGEST, escaped, sentence, shown

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts) | st.tuples(parts, parts),
    max_leaves=20,
)


@given(VALUES)
def test_a_short_value_is_shown_as_python_writes_it(value):
    text = repr(value)
    assert shown(value, len(text)) == text
    short = shown(value, 20)
    # An apostrophe after the cut would have changed the quotes
    assert short == (text if len(text) <= 20 else text[:17] + "...") or '"' in text
    assert len(short) <= max(len("..."), 20)


def test_a_list_of_itself_many_times_is_shown_at_once():
    value: list = ["lol"]
    for _ in range(60):
        value = [value] * 10  # 10^60 texts
    assert len(shown(value)) <= 80 and len(shown({"a": value, "b": [value]})) <= 80
    value.append(value)
    assert shown(value).endswith("...")


@pytest.mark.parametrize("digits", [101, 5_000, 100_000])
def test_a_long_number_is_described(digits):
    assert shown(10 ** (digits - 1)) == f"a whole number of about {digits:,} digits"


def test_all_that_steers_a_terminal_is_escaped():
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    steering = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) in kinds]
    assert {"\x00", "\x1b", "\x7f", "\x9b", "\u202e", "\u2028", "\ud800"} <= set(steering)
    assert escaped("".join(steering)).isprintable() and sentence("\x1b[2J") == "\\x1b[2J"
    assert escaped("Größe 42 \u4e2d") == "Größe 42 \u4e2d"


@given(st.text(max_size=2000) | st.text("\x1b\u202e\U000e0001", min_size=100))
def test_a_sentence_is_short_and_keeps_both_ends(text):
    said = sentence(text)
    assert len(said) <= LONGEST and said.isprintable()
    whole = escaped(text.strip())
    if len(whole) <= LONGEST and len(text) <= LONGEST:
        assert said == whole
    long = sentence(f"what: {text * 10}{'x' * LONGEST}; the remedy")
    assert long.startswith("what: ") and long.endswith("; the remedy")
