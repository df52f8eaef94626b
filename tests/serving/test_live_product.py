"""What a product that is added while the server runs may be."""

from __future__ import annotations

import numpy as np
import pytest

from mufin.errors import sentence, shown
from mufin.serving.live_product import LiveProduct, check_uid
from mufin.serving.query import QueryError

REFUSED = [
    ("uid", {"uid": ""}),
    ("uid", {"uid": None}),
    ("uid", {"uid": 7}),
    ("uid", {"uid": "a" * 257}),
    ("uid", {"uid": "a\nb"}),
    ("uid", {"uid": "a\0"}),
    ("uid", {"uid": "\ud800"}),
    ("title", {"title": None}),
    ("title", {"title": "half \udc00"}),
    ("category", {"category": "Home"}),
    ("category", {"category": ["Home"]}),
    ("category", {"category": (1,)}),
    ("category", {"category": ("\ud800",)}),
    ("attributes", {"attributes": None}),
    ("attributes", {"attributes": {"": 1}}),
    ("attributes", {"attributes": {1: 1}}),
    ("attributes", {"attributes": {"a": None}}),
    ("attributes", {"attributes": {"a": [1]}}),
    ("attributes", {"attributes": {"a": {"gte": 1}}}),
    ("attributes", {"attributes": {"a": float("nan")}}),
    ("attributes", {"attributes": {"a": float("inf")}}),
    ("attributes", {"attributes": {"a": 2**53 + 1}}),
    ("attributes", {"attributes": {"a": 10**5000}}),
    ("attributes", {"attributes": {"a": 1j}}),
    ("attributes", {"attributes": {"a": np.float32(1)}}),
    ("attributes", {"attributes": {"a": "\ud800"}}),
    ("attributes", {"attributes": {"\ud800": 1}}),
    ("texts", {"texts": "a text"}),
    ("texts", {"texts": ["a text"]}),
    ("texts", {"texts": (1,)}),
    ("texts", {"texts": ("\ud800",)}),
    ("pictures", {"pictures": b"jpeg"}),
    ("pictures", {"pictures": ("jpeg",)}),
    ("pictures", {"pictures": (b"",)}),
]


@pytest.mark.parametrize("name,values", REFUSED, ids=lambda value: ascii(shown(value)))
def test_a_value_that_no_product_can_have_is_refused(name, values):
    with pytest.raises(QueryError) as error:
        LiveProduct(**({"uid": "B1"} | values))
    assert error.value.field == name
    said = sentence(str(error.value))
    assert name.rstrip("s") in said
    assert ";" in said and said.encode()


def test_whole_numbers_become_floats_and_flags_stay():
    values = LiveProduct("B1", attributes={"price": 5, "new": True, "colour": "red"}).attributes
    assert values == {"price": 5.0, "new": True, "colour": "red"}
    assert [type(v) for v in values.values()] == [float, bool, str]


def test_attributes_are_not_those_of_the_caller():
    given = {"price": 1.0}
    product = LiveProduct("B1", attributes=given)
    given["price"] = float("nan")
    assert product.attributes == {"price": 1.0}


def test_a_uid_of_256_characters_of_any_script_is_accepted():
    check_uid("é" * 256)
    check_uid("a b/c?d#\U0001f600")
