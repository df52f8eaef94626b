"""`--where`: conditions such as `price<=20` or `category=Mugs,Cups` as values of a query."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mufin.errors import MufinError, shown
from mufin.serving.query import Scalar

PARTS = re.compile(r"\s*([^<>=]*[^<>=\s])\s*(<=|>=|==|=|<|>)(.*)", re.DOTALL)
BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Condition:
    """One `--where`, whose value has no type yet."""

    column: str
    bound: str  # lt, lte, gt or gte; '' for =
    value: str


def parsed(texts: Sequence[str]) -> list[Condition]:
    """The conditions that the texts say; raises MufinError for one that says none."""
    out: list[Condition] = []
    for text in texts:
        found = PARTS.fullmatch(text)
        if not found or not found[3].strip():
            raise MufinError(
                f"--where {shown(text)} is not a condition; write one such as 'price<=20', "
                "in_stock=true or category=Mugs,Cups"
            )
        out.append(Condition(found[1], BOUNDS.get(found[2], ""), found[3].strip()))
    for number, condition in enumerate(out):
        _check_others(condition, out[:number])
    return out


def _check_others(condition: Condition, before: list[Condition]) -> None:
    """Raises MufinError where two conditions on one column cannot be one."""
    for other in before:
        if other.column == condition.column and other.bound == condition.bound:
            remedy = "give one bound" if other.bound else "give a list such as a,b"
            raise MufinError(f"--where has {condition.column} twice; {remedy}")
        if other.column == condition.column and not (other.bound and condition.bound):
            raise MufinError(f"--where has {condition.column} with = and with a bound; give one")


def where_of(conditions: Sequence[Condition], columns: Mapping[str, Mapping]) -> dict | None:
    """The `where` of a query; `columns` has what a recommender knows of each column: its kind
    (number, flag or text), and of texts their `values`, and whether there are `more`.

    Raises MufinError for a value that its column does not have.
    """
    out: dict[str, object] = {}
    for c in conditions:
        facts = columns.get(c.column, {})  # empty: the recommender refuses an unknown column
        kind = facts.get("kind", "text")
        if c.bound:
            if kind != "number" and facts:
                raise MufinError(f"--where has a bound of {c.column}, a column of {kind}s; use =")
            bounds = out.setdefault(c.column, {})
            assert isinstance(bounds, dict)
            bounds[c.bound] = _number(c.column, c.value)
        else:
            values = [_value(c.column, kind, text) for text in _listed(c)]
            _check_known(c.column, values, facts)
            out[c.column] = values if len(values) > 1 else values[0]
    return out or None


def _check_known(column: str, values: list[Scalar], facts: Mapping) -> None:
    """Raises MufinError for a text that no product has, where all texts are known."""
    known = facts.get("values")
    if known is None or facts.get("more"):
        return
    for value in values:
        if value not in known:
            near = difflib.get_close_matches(str(value), known, 1, 0.3) or known[:1]
            hint = f"; did you mean {shown(near[0])}?" if near else "; no product has a value"
            raise MufinError(f"--where {column} is {shown(value)}, which no answer has{hint}")


def _listed(condition: Condition) -> list[str]:
    """The values of a list with commas; one in double quotes may hold a comma."""
    try:
        [row] = csv.reader([condition.value], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):  # ValueError: several lines
        raise MufinError(
            f"--where {condition.column} has the list {shown(condition.value)}, whose quotes do "
            "not match; put a value with a comma in double quotes"
        ) from None
    return [text.strip() for text in row]


def _value(column: str, kind: str, text: str) -> Scalar:
    if kind == "number":
        return _number(column, text)
    if kind == "flag":
        if text.lower() not in FLAGS:
            raise MufinError(f"--where {column} is {shown(text)}; give true or false")
        return FLAGS[text.lower()]
    return text


def _number(column: str, text: str) -> float:
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MufinError(f"--where {column} is {shown(text)}; give a number")
    return number
