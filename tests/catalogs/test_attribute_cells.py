"""Values of columns for filters: what one value could be, and what hostile ones become."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.catalogs.attribute_cells import (
    COMMA,
    FLAG,
    LONGEST,
    MONEY,
    MOST,
    NUMBER,
    TEXT,
    attribute_of,
    reading,
    reading_of_text,
)
from mufin.catalogs.notes import Notes

MANY = [str(i) for i in range(10**5)]


def read(value: object) -> tuple[object, list[str]]:
    """The value, and what was noticed."""
    notes = Notes()
    return attribute_of(value, "x", notes), list(notes.counts)


@pytest.mark.parametrize(
    "text, number",
    [("12", 12), ("12.50", 12.5), ("-3", -3), ("+3", 3), ("0", 0), ("0.5", 0.5), (".99", 0.99)],
)
def test_plain_numbers_are_numbers(text, number):
    found = reading_of_text(text)
    assert (found.kind, found.number) == (NUMBER, number)


@pytest.mark.parametrize(
    "text, number, currency",
    [
        ("12.50 EUR", 12.5, "EUR"),
        ("12,50 EUR", 12.5, "EUR"),
        ("EUR 12", 12, "EUR"),
        ("$5", 5, "USD"),
        ("US$ 5.5", 5.5, "USD"),
        ("1,250.00 USD", 1250, "USD"),
        ("1.250,00€", 1250, "EUR"),
        ("1,234,567.8 INR", 1234567.8, "INR"),
        ("-4.99 GBP", -4.99, "GBP"),
        ("0.1234 EUR", 0.1234, "EUR"),
    ],
)
def test_amounts_are_numbers_with_a_currency(text, number, currency):
    found = reading_of_text(text)
    assert (found.kind, found.number, found.currency) == (MONEY, number, currency)


@pytest.mark.parametrize(
    "text",
    [
        "007",
        "1e5",
        "12.",
        "1_000",
        "٣",
        "0x1F",
        "nan5",
        "inf",
        "1.250 EUR",  # a thousand, or one and a quarter
        "1,250 EUR",
        "EUR 5 EUR",
        "5 XYZ",
        "12 cm",
        "EUR",
        "EUR .",
        "1,2,3 EUR",
        "1.2.3",
        "9007199254740993",
        "1" * 18,
        "1" * 400,
        "12,5",
        "12,500",
        "maybe",
    ],
)
def test_what_can_be_read_in_two_ways_is_a_text(text):
    assert reading_of_text(text).kind == TEXT


def test_two_decimals_behind_a_comma_may_be_a_number():
    assert reading_of_text("12,50").kind == COMMA and reading_of_text("12,50").number == 12.5


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "Yes"])
def test_words_for_true_are_flags(text):
    assert (reading_of_text(text).kind, reading_of_text(text).number) == (FLAG, 1.0)


@pytest.mark.parametrize("text", ["in stock", "out of stock", "y", "ja", "on"])
def test_other_words_are_texts(text):
    assert reading_of_text(text).kind == TEXT


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("\x00\n", None),
        (float("nan"), None),
        (Decimal("NaN"), None),
        (True, True),
        (5, 5),
        (2.5, 2.5),
        (Decimal("2.5"), 2.5),
        (" a\tb\x1bc\u2028 ", "a b c"),
        ("a\ud83d", "a?"),
        ("किताब\u200dx", "किताब\u200dx"),  # joiners are part of words
        (b"red", "red"),
        (datetime.date(2026, 11, 28), "2026-11-28"),
        ([], None),
        ("[]", None),
        ([None, ""], None),
        (["red"], "red"),
        ([2.5], 2.5),
        ([True], True),
        (["red", "red", " red "], "red"),
        (["red", None, 5, True], ["red", "5", "true"]),
        ("red|blue|", ["red", "blue"]),
        ('["red", "blue"]', ["red", "blue"]),
        ("['red', 'blue']", ["red", "blue"]),
        ("[4, 5]", ["4", "5"]),
        ("[New] mug", "[New] mug"),
        ("Home > Kitchen", "Home > Kitchen"),
        (10**17, "100000000000000000"),
        (Decimal(10) ** 17, "100000000000000000"),
    ],
)
def test_a_value_is_what_one_row_tells(value, expected):
    found, noticed = read(value)
    assert found == expected and type(found) is type(expected) and not noticed


@pytest.mark.parametrize(
    "value, expected, message",
    [
        (math.inf, None, "numbers in x that are not finite, left out"),
        (Decimal("-Infinity"), None, "numbers in x that are not finite, left out"),
        ({"a": 1}, None, "objects in x, left out; name a field, such as x.a"),
        ([{"a": 1}], None, "objects in x, left out; name a field, such as x.a"),
        ({}, None, "objects in x, left out; name a field, such as x.name"),
        ([["a"], "b"], "b", "lists inside lists in x, left out"),
        (b"\xff\xd8\xff", None, "bytes in x that are no text, left out"),
        ("N/A", None, "words for nothing in x, read as missing"),
        ("a" * 2_000_000, "a" * LONGEST, f"texts of more than {LONGEST} characters in x, cut"),
        (10**4000, "1" + "0" * (LONGEST - 1), f"texts of more than {LONGEST} characters in x, cut"),
        (MANY, MANY[:MOST], f"lists of more than {MOST} items in x, cut"),
    ],
)
def test_what_is_no_value_is_counted(value, expected, message):
    found, noticed = read(value)
    assert found == expected and noticed == [message]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_every_value_has_a_reading(value):
    found, _ = read(value)
    if isinstance(found, list):
        assert len(found) > 1 and len(set(found)) == len(found)
        assert all(isinstance(text, str) and text == text.strip() != "" for text in found)
    elif isinstance(found, str):
        assert found.strip() == found != "" and found.encode()
    if found is not None:
        assert math.isfinite(reading(found).number)


@given(st.floats(0.01, 1e9).map(lambda x: round(x, 2)), st.sampled_from(["EUR", "$", "£"]))
def test_written_amounts_are_read_back(number, sign):
    for text in (f"{number:.2f} {sign}", f"{sign}{number:,.2f}", f"{number:.2f}{sign}"):
        assert reading_of_text(text).number == pytest.approx(number, abs=1e-6), text
    german = f"{number:,.2f}".translate(str.maketrans(",.", ".,"))
    assert reading_of_text(f"{german} {sign}").number == pytest.approx(number, abs=1e-6)
