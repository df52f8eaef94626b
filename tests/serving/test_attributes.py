"""Conditions on columns against a slow loop over dictionaries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.serving.attributes import Attributes
from mufin.serving.query import QueryError

COLOURS = ["red", "blue", "green"]
VALUES = {
    "price": st.none() | st.integers(-2, 3).map(float),
    "stock": st.none() | st.booleans(),
    "colour": st.none() | st.sampled_from(COLOURS),
    "tags": st.none() | st.lists(st.sampled_from(COLOURS), max_size=3),
}
ROW = st.fixed_dictionaries(VALUES)
CATEGORY = st.lists(st.sampled_from("abc"), max_size=3)
BOUNDS = st.dictionaries(
    st.sampled_from(["gte", "gt", "lte", "lt"]), st.integers(-2, 3), min_size=1
)
WHERE = st.fixed_dictionaries(
    {},
    optional={
        "price": st.integers(-2, 3) | st.lists(st.integers(-2, 3), min_size=1) | BOUNDS,
        "stock": st.booleans(),
        "colour": st.sampled_from(COLOURS) | st.lists(st.sampled_from(COLOURS), min_size=1),
        "tags": st.sampled_from(COLOURS),
        "category": st.sampled_from("abcd"),
    },
)
SCHEMA = {
    "price": pa.float64(),
    "stock": pa.bool_(),
    "colour": pa.string(),
    "tags": pa.list_(pa.string()),
}


def of_rows(rows: list[dict], categories: list[list[str]]) -> Attributes:
    columns = {n: pa.chunked_array([pa.array([r[n] for r in rows], t)]) for n, t in SCHEMA.items()}
    return Attributes(
        pa.table(columns), pa.chunked_array([pa.array(categories, pa.list_(pa.string()))])
    )


def meets(row: dict, where: dict) -> bool:
    """The slow way."""
    compare = {
        "gte": lambda a, b: a >= b,
        "gt": lambda a, b: a > b,
        "lte": lambda a, b: a <= b,
        "lt": lambda a, b: a < b,
    }
    for name, condition in where.items():
        value = row.get(name)
        if value is None:
            return False
        if isinstance(condition, dict):
            if not all(compare[bound](value, limit) for bound, limit in condition.items()):
                return False
            continue
        wanted = condition if isinstance(condition, list) else [condition]
        values = value if isinstance(value, list | tuple) else [value]
        if not set(values) & set(wanted):
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ROW, CATEGORY), max_size=8),
    st.lists(st.tuples(st.integers(0, 10), ROW, CATEGORY), max_size=6),
    WHERE,
)
def test_a_mask_is_a_loop_over_products(base, changes, where):
    rows = [row | {"category": category} for row, category in base]
    attributes = of_rows([row for row, _ in base], [category for _, category in base])
    for label, row, category in changes:
        label = min(label, len(rows))
        new = {n: v for n, v in row.items() if v is not None and n != "tags"}
        attributes.check(new)
        attributes.set(label, new, tuple(category))
        rows[label:] = [new | {"category": category}, *rows[label + 1 :]]
    expected = [meets(row, where) for row in rows]
    assert attributes.mask(where, len(rows)).tolist() == expected


def test_facts_are_the_ranges_and_values_of_the_living():
    rows = [
        {"price": 1.0, "stock": True, "colour": "red", "tags": ["red"]},
        {"price": 9.0, "stock": None, "colour": "blue", "tags": None},
        {"price": 5.0, "stock": None, "colour": "red", "tags": None},
    ]
    attributes = of_rows(rows, [["a"], ["b"], ["a"]])
    facts = attributes.facts(np.array([True, False, True]))
    assert facts["price"] == {"kind": "number", "min": 1.0, "max": 5.0}
    assert facts["colour"] == {"kind": "text", "values": ["red"], "more": False}
    assert facts["category"]["values"] == ["a"] and facts["stock"] == {"kind": "flag"}


@pytest.mark.parametrize(
    "where, said",
    [
        ({"prise": 1}, "did you mean price"),
        ({"price": "cheap"}, "holds numbers"),
        ({"price": True}, "holds numbers"),
        ({"price": {"above": 1}}, "gte, gt, lte, lt"),
        ({"price": {"gte": "1"}}, "give a number"),
        ({"price": {"gte": float("inf")}}, "finite"),
        ({"price": []}, "is empty"),
        ({"price": {}}, "is empty"),
        ({"price": None}, "give a text, a number"),
        ({"stock": {"gte": 1}}, "holds true and false"),
        ({"stock": 1}, "holds true and false"),
        ({"colour": 3}, "holds texts"),
        ({"colour": {"gte": 3}}, "holds texts"),
        ({"price": [[1]]}, "give a text, a number"),
    ],
)
def test_a_condition_that_does_not_fit_is_a_sentence(where, said):
    attributes = of_rows([], [])
    with pytest.raises(QueryError, match=said) as error:
        attributes.mask(where, 0)
    assert error.value.field == "where"


def test_attributes_of_a_new_product_have_the_kind_of_their_column():
    attributes = of_rows([], [])
    with pytest.raises(QueryError, match="holds numbers"):
        attributes.check({"price": "cheap"})
    with pytest.raises(QueryError, match="give it beside"):
        attributes.check({"category": "a"})
    attributes.set(0, {"brand": "Acme", "weight": 2}, ())
    with pytest.raises(QueryError, match="holds texts"):
        attributes.check({"brand": 3})
    assert attributes.mask({"brand": "Acme", "weight": {"gt": 1}}, 2).tolist() == [True, False]
