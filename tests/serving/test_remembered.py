"""A bounded memory of computed values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mufin.serving.remembered import Remembered


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=20))
def test_values_are_those_computed_anew(batches):
    kept: Remembered[bytes] = Remembered(20, len)
    made: list[int] = []
    for keys in batches:

        def make(positions: list[int], keys=keys) -> list[bytes]:
            made.extend(positions)
            assert len({keys[p] for p in positions}) == len(positions)
            return [bytes([keys[p]]) * keys[p] for p in positions]

        assert kept.all(keys, make) == [bytes([key]) * key for key in keys]
        assert kept.bytes == sum(map(len, kept.values.values())) <= 20


def test_the_least_recently_used_goes_first():
    kept: Remembered[bytes] = Remembered(4, len)
    for key in "ab":
        kept.put(key, b"xx")
    assert kept.get("a") == b"xx"
    kept.put("c", b"xx")
    assert kept.get("b") is None and kept.get("a") is not None
    kept.put("d", b"too large")
    assert kept.get("d") is None and kept.get("a") is not None
