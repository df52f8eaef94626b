"""Prices, stock and colours of the sample: stateless, and of a shop's likely spread."""

from __future__ import annotations

import numpy as np

from mufin.corpus.sample import invent_world, sample_catalog
from mufin.corpus.sample_pictures import COLOURS
from mufin.corpus.sample_shop import NAMES, shop_values

UIDS = [f"B{i:09d}" for i in range(2000)]


def test_a_products_price_and_stock_depend_on_its_uid_alone():
    some = [values[:2] for values in shop_values(UIDS, 2000, 0)]
    assert some[:60] == [values[:2] for values in shop_values(UIDS[:60], 60, 7)]
    assert some[3:5] == [values[:2] for values in shop_values(UIDS[3:5], 2000, 0)]


def test_known_values_stay():
    assert NAMES == ("price", "in_stock", "colour")
    assert shop_values(UIDS[:3], 60, 0) == [
        (27.49, True, "red"),
        (5.49, True, "brown"),
        (52.99, True, "black"),
    ]


def test_prices_stock_and_colours_are_spread():
    prices, stock, colours = zip(*shop_values(UIDS, 2000, 0))
    there = np.array([price for price in prices if price is not None])
    assert 0.96 < len(there) / 2000 < 1.0 and 0.87 < np.mean(stock) < 0.93
    assert there.min() == 2.99 and there.max() == 82.49 and 38 < np.median(there) < 47
    assert set(colours) == {name for name, _ in COLOURS}


def test_the_colour_is_that_of_the_pictures():
    colour = invent_world(60, 5).colour
    assert [v[2] for v in shop_values(UIDS[:60], 60, 5)] == [COLOURS[c][0] for c in colour]


def test_the_random_draws_of_the_sample_stay():
    before = sample_catalog(60, 3)
    shop_values(UIDS[:60], 60, 3)
    assert sample_catalog(60, 3) == before
