"""Results of a function that several threads compute."""

from __future__ import annotations

import threading
import time

import pytest

from mufin.catalogs.json_blocks import WAITING, in_order


def test_results_come_in_the_order_of_the_items():
    def slow(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number**2

    assert list(in_order(slow, range(50))) == [number**2 for number in range(50)]
    assert list(in_order(slow, [])) == []


@pytest.mark.parametrize("where", ["item", "result"])
def test_an_error_comes_after_the_results_before_it(where):
    def items():
        yield from range(5)
        if where == "item":
            raise EOFError("cut")
        yield 5

    def checked(number: int) -> int:
        if number == 5:
            raise EOFError("cut")
        return number

    found = []
    with pytest.raises(EOFError, match="cut"):
        for number in in_order(checked, items()):
            found.append(number)
    assert found == [0, 1, 2, 3, 4]


def test_items_are_made_a_bounded_number_ahead():
    made = 0

    def items():
        nonlocal made
        while True:
            made += 1
            yield made

    before = threading.active_count()
    results = in_order(lambda item: item, items())
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    time.sleep(0.1)
    assert made <= 3 + WAITING + 1
    results.close()
    assert threading.active_count() == before
