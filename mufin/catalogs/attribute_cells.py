"""Values of columns that are kept for filters (price, stock, colour) to texts, numbers and flags.

A value says what it could be; what a whole column is, `raw_attributes` decides when all are known.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from mufin.catalogs.cells import EXACT, NULLS, text_of
from mufin.catalogs.lists import parts
from mufin.catalogs.notes import Notes

Value = bool | int | float | str | list[str] | None
Values = tuple[Value, ...]  # of a product, in the order of the attributes

LONGEST = 1000  # characters of a text; longer ones are no values to filter by
MOST = 100  # items of a list
MISSING, NUMBER, MONEY, COMMA, FLAG, TEXT, LIST = range(7)  # kinds of a value
BREAKS = re.compile(r"[\s\u0000-\u001f\u007f-\u009f\u200b\ufeff]+")  # blanks and control characters
FLAGS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
# Without a zero at the beginning: 007 is a code. Without an exponent: so is 1e5.
PLAIN = re.compile(r"[+-]?(?=\.?[0-9])(?:0|[1-9][0-9]{0,17})?(?:\.[0-9]{1,18})?")
SIGNS = {"€": "EUR", "£": "GBP", "$": "USD", "US$": "USD", "¥": "JPY", "₹": "INR", "zł": "PLN"}
CODES = (
    "EUR USD GBP JPY CNY INR AUD CAD NZD CHF SEK NOK DKK ISK PLN CZK HUF RON BGN RSD UAH RUB TRY "
    "ILS AED SAR QAR KWD EGP ZAR NGN KES MAD BRL MXN ARS CLP COP PEN UYU SGD HKD TWD KRW THB MYR "
    "IDR PHP VND PKR BDT LKR"
)
CURRENCY = "|".join(re.escape(text) for text in [*SIGNS, *CODES.split()])
AMOUNT = re.compile(rf"(?:({CURRENCY})\s*)?(-?[0-9][0-9.,]*)(?:\s*({CURRENCY}))?")
# What separates the decimals is known where a thousand cannot be meant: 12,50 and 1.250,00. Of
# `1.250 EUR` and `1,250 EUR` it is not.
POINT = re.compile(r"-?[0-9]{1,15}(?:\.(?:[0-9]{1,2}|[0-9]{4,18}))?")
POINT_GROUPED = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3}){1,4}\.[0-9]{1,2}")
DECIMAL_COMMA = re.compile(r"-?[0-9]{1,15},[0-9]{1,2}")
COMMA_GROUPED = re.compile(r"-?[0-9]{1,3}(?:\.[0-9]{3}){1,4},[0-9]{1,2}")
TWO_DECIMALS = re.compile(r"-?[0-9]{1,15},[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a single value could be."""

    kind: int
    number: float = 0.0  # of NUMBER, MONEY, COMMA and FLAG
    currency: str = ""  # of MONEY


def attribute_of(value: object, column: str, notes: Notes) -> Value:
    """The value as far as one row tells it; None for a missing one.

    A list of one item is this item. What cannot be a value to filter by (an object, bytes, a number
    that is not finite) is missing, and counted; long texts and lists are cut, and counted.
    """
    if isinstance(value, str):
        return _of_text(value, column, notes)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return _of_number(value, column, notes)
    if isinstance(value, list | tuple):
        return _of_list(value, column, notes)
    if isinstance(value, dict):
        inside = next((key for key in value if isinstance(key, str)), "name")
        notes.add(f"objects in {column}, left out; name a field, such as {column}.{inside}")
        return None
    if isinstance(value, bytes):
        try:
            return _of_text(value[: 4 * LONGEST].decode(), column, notes)
        except UnicodeDecodeError:
            notes.add(f"bytes in {column} that are no text, left out")
            return None
    return _of_text(str(value), column, notes)  # such as a date


def _of_text(text: str, column: str, notes: Notes) -> Value:
    text = text.strip()
    if text[:1] == "[" and len(text) <= LONGEST * MOST:
        found = parts(text, "text")
        if found is not None:
            return _of_list(found, column, notes)
    if "|" in text:
        return _of_list(text.split("|", MOST + 1), column, notes)
    return _item(text, column, notes)


def _item(text: str, column: str, notes: Notes) -> str | None:
    """A text on one line that UTF-8 can encode, None for a blank one or a word for nothing."""
    if not text:
        return None
    if len(text) > LONGEST:
        notes.add(f"texts of more than {LONGEST} characters in {column}, cut", text[:40])
        text = text[:LONGEST]
    if not text.isprintable():
        text = BREAKS.sub(" ", text_of(text)).strip()
    if text in NULLS:
        notes.add(f"words for nothing in {column}, read as missing", text)
        return None
    return text or None


def _of_number(value: int | float | Decimal, column: str, notes: Notes) -> Value:
    if value != value:  # NaN, which tools write for an empty cell
        return None
    large = EXACT <= value < math.inf or -math.inf < value <= -EXACT
    if large and not isinstance(value, float):
        return _item(str(value), column, notes)  # a float would lose digits of what may be an id
    if isinstance(value, int):
        return value
    number = float(value)
    if number - number != 0:
        notes.add(f"numbers in {column} that are not finite, left out", str(value))
        return None
    return number


def _of_list(items: list | tuple, column: str, notes: Notes) -> Value:
    """The texts of the items, each once; of one item its value, of none None."""
    if len(items) > MOST:
        notes.add(f"lists of more than {MOST} items in {column}, cut")
        items = items[:MOST]
    if len(items) == 1 and not isinstance(items[0], str | list | tuple):
        return attribute_of(items[0], column, notes)
    found: dict[str, None] = {}
    for item in items:
        if isinstance(item, list | tuple):
            notes.add(f"lists inside lists in {column}, left out")
            continue
        value = attribute_of(item, column, notes) if not isinstance(item, str) else item.strip()
        text = _item(text_of_value(value), column, notes) if value is not None else None
        if text is not None:
            found[text] = None
    return list(found) if len(found) > 1 else next(iter(found), None)


def text_of_value(value: bool | int | float | str | list[str]) -> str:
    """The value as a text: `true`, `12`, `12.5`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == value // 1 and abs(value) < EXACT:
        return str(int(value))
    return str(value)


def reading(value: bool | int | float | str | list[str]) -> Reading:
    """What a value of `attribute_of` could be."""
    if isinstance(value, list):
        return Reading(LIST)
    if isinstance(value, bool):
        return Reading(FLAG, float(value))
    if isinstance(value, int | float):
        return Reading(NUMBER, float(value))
    return reading_of_text(value)


def reading_of_text(text: str) -> Reading:
    """What a text could be: a number such as 12.50, an amount such as `12,50 EUR`, a flag."""
    if (flag := FLAGS.get(text.lower())) is not None:
        return Reading(FLAG, flag)
    if PLAIN.fullmatch(text):
        number = float(text)
        exact = "." in text or abs(number) < EXACT
        return Reading(NUMBER, number) if exact else Reading(TEXT)
    if TWO_DECIMALS.fullmatch(text):
        return Reading(COMMA, float(text.replace(",", ".")))
    found = AMOUNT.fullmatch(text)
    if found is None or bool(found[1]) == bool(found[3]):
        return Reading(TEXT)
    amount = _amount(found[2])
    if amount is None:
        return Reading(TEXT)
    sign = found[1] or found[3]
    return Reading(MONEY, amount, SIGNS.get(sign, sign))


def _amount(text: str) -> float | None:
    """The number of an amount, None where its separators can be read in two ways."""
    if POINT.fullmatch(text):
        return float(text)
    if POINT_GROUPED.fullmatch(text):
        return float(text.replace(",", ""))
    if DECIMAL_COMMA.fullmatch(text) or COMMA_GROUPED.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    return None
