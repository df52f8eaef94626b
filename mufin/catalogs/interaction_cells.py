"""Columns of ids, times and numbers to typed arrays: as `cells` reads each value, but many at once.

Values in plain forms are read by column. All others go to `cells` one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mufin.catalogs.cells import EXACT, NULLS

T = TypeVar("T")
Each = Callable[[int], T]  # the value of a row, by its place in the column
BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace())  # what str.strip removes
NUMBER = r"^-?\d{1,18}(\.\d{1,18})?$"
EIGHT_DIGITS = r"^(19|20)\d\d[01]\d[0-3]\d$"  # as DAY of `cells`
INSTANT = r"^[1-9]\d{3}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
ZONED = r"^[1-9]\d{3}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$"
SLASHES = re.compile(r"^(\d{4})/(\d\d)/(\d\d)")  # of 2026/11/28
DAY = 86400.0


def is_missing(value: object) -> bool:
    """Whether a cell has no value: null, NaN, blank, or a word of NULLS."""
    if isinstance(value, str):
        return not (text := value.strip()) or text in NULLS
    return value is None or value != value


def with_dashes(value: object) -> object:
    """`2026-11-28 ...` for `2026/11/28 ...`; other values as they are."""
    return SLASHES.sub(r"\1-\2-\3", value.strip()) if isinstance(value, str) else value


def ids(column: pa.Array, each: Each[str | None]) -> pa.Array:
    """(n,) strings, null where the id is missing."""
    kind, column = _plain(column)
    if kind == "text":
        texts = pc.utf8_trim(column, BLANKS)
        missing = _false(pc.is_in(texts, pa.array(["", *NULLS])))
        odd = _false(pc.or_(pc.ends_with(texts, ".0"), pc.match_substring(texts, "+")))
        texts = pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), texts)
    elif kind == "whole":
        return pc.cast(column, pa.string())
    elif kind == "float":
        values = _floats(column)
        there = ~np.isnan(values)
        odd = there & ~((np.abs(values) < EXACT) & (np.floor(values) == values))
        whole = np.where(there & ~odd, values, 0).astype(np.int64)
        texts = pc.cast(pa.array(whole, mask=~there | odd), pa.string())
        missing = ~there
    else:
        texts, odd = pa.nulls(len(column), pa.string()), np.ones(len(column), bool)
        missing = ~odd
    if not (odd := odd & ~missing).any():
        return texts
    found = texts.to_pylist()
    for k in np.flatnonzero(odd).tolist():
        found[k] = each(k)
    return pa.array(found, pa.string())


def numbers(column: pa.Array, each: Each[float | None]) -> np.ndarray:
    """(n,) float64, NaN where the number is missing."""
    kind, column = _plain(column)
    if kind in ("whole", "float"):
        values = _floats(column)
        return _with_odd(values, np.isinf(values), each)
    values, odd = np.full(len(column), np.nan), np.ones(len(column), bool)
    if kind == "text":
        texts = pc.utf8_trim(column, BLANKS)
        _put(values, odd, texts, NUMBER, pa.float64())
        odd &= ~_false(pc.is_in(texts, pa.array(["", *NULLS]))) & ~_false(pc.is_null(texts))
    return _with_odd(values, odd, each)


def times(column: pa.Array, each: Each[float | None]) -> np.ndarray:
    """(n,) float64 seconds since 1970, NaN where the time is missing."""
    kind, column = _plain(column)
    if kind == "time":
        return _floats(pc.cast(_microseconds(column), pa.int64())) / 1e6
    values, odd = np.full(len(column), np.nan), np.ones(len(column), bool)
    if kind in ("whole", "float"):
        values = _floats(column)
        odd = np.isinf(values)
        days = (values >= 19000000) & (values < 21000000) & (np.floor(values) == values)
        if kind == "float":
            odd |= days  # 20261128.0 is no date
        else:
            _put_days(values, odd, days)
        values[~days] = _seconds(values[~days])
        odd |= np.isinf(values)
    elif kind == "text":
        texts = pc.utf8_trim(column, BLANKS)
        texts = pc.replace_substring_regex(texts, r"^(\d{4})/(\d\d)/(\d\d)", r"\1-\2-\3")
        _put(values, odd, texts, NUMBER, pa.float64())
        days = _false(pc.match_substring_regex(texts, EIGHT_DIGITS))
        _put_days(values, odd, days)
        seconds = ~odd & ~days
        values[seconds] = _seconds(values[seconds])
        odd |= np.isinf(values)
        _put(values, odd, texts, INSTANT, pa.timestamp("us"))
        _put(values, odd, texts, ZONED, pa.timestamp("us", "UTC"))
        odd &= ~_false(pc.is_in(texts, pa.array(["", *NULLS]))) & ~_false(pc.is_null(texts))
    return _with_odd(values, odd, each)


def _plain(column: pa.Array) -> tuple[str, pa.Array]:
    """What the column holds: text, whole, float, time or other."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text", pc.cast(column, pa.string())
    if pa.types.is_null(kind):
        return "text", pc.cast(column, pa.string())
    if pa.types.is_integer(kind):
        return "whole", column
    if pa.types.is_floating(kind):
        return "float", pc.cast(column, pa.float64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time", column
    return "other", column


def _microseconds(column: pa.Array) -> pa.Array:
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    return pc.cast(column, pa.timestamp("us", zone), safe=False)


def _floats(column: pa.Array) -> np.ndarray:
    """(n,) float64, NaN for null."""
    floats = pc.cast(column, pa.float64(), safe=False)
    return pc.fill_null(floats, np.nan).to_numpy(zero_copy_only=False).copy()


def _false(mask: pa.Array) -> np.ndarray:
    """(n,) bool, false for null."""
    return pc.fill_null(mask, False).to_numpy(zero_copy_only=False)


def _put(
    values: np.ndarray, odd: np.ndarray, texts: pa.Array, pattern: str, kind: pa.DataType
) -> None:
    """Set the values of texts that match, and that they are not odd; none if one is wrong."""
    found = np.flatnonzero(_false(pc.match_substring_regex(texts, pattern)) & odd)
    if not len(found):
        return
    try:
        cast = pc.cast(texts.take(pa.array(found)), kind)
    except pa.ArrowInvalid:  # such as February 30: each of them goes to `cells`
        return
    scale = 1.0
    if pa.types.is_timestamp(kind):
        cast, scale = pc.cast(cast, pa.int64()), 1e6
    values[found] = _floats(cast) / scale
    odd[found] = False


def _put_days(values: np.ndarray, odd: np.ndarray, days: np.ndarray) -> None:
    """Turn numbers such as 20261128 into seconds; odd are those that are no date."""
    found = values[days].astype(np.int64)
    month = (found // 10000 - 1970) * 12 + found // 100 % 100 - 1
    first = month.astype("M8[M]").astype("M8[D]")
    day = first + (found % 100 - 1)
    good = (found // 100 % 100 >= 1) & (found // 100 % 100 <= 12) & (day.astype("M8[M]") == first)
    values[days] = day.astype(np.int64) * DAY
    odd[days] = ~good


def _seconds(values: np.ndarray) -> np.ndarray:
    """Seconds of numbers of seconds, milli-, micro- or nanoseconds; infinite if it is none."""
    size, out = np.abs(values), values.copy()
    for power in (1e3, 1e6, 1e9):
        larger = size >= 1e11 * power / 1e3
        out[larger] = values[larger] / power
    out[size >= 1e20] = np.inf
    return out


def _with_odd(values: np.ndarray, odd: np.ndarray, each: Each[float | None]) -> np.ndarray:
    for k in np.flatnonzero(odd).tolist():
        value = each(k)
        values[k] = np.nan if value is None else value
    return values
