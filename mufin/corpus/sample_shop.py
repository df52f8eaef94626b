"""What a shop knows of the built-in sample's products besides titles and pictures, for filters.

Nothing is drawn from the generators of `sample`: prices and stock come from a hash of the uid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mufin.corpus.sample import invent_world
from mufin.corpus.sample_pictures import COLOURS

Values = tuple[float | None, bool, str]
NAMES = ("price", "in_stock", "colour")
CHEAPEST, STEPS = 299, 160  # cents; prices are 2.99, 3.49, ... 82.49
NO_PRICE = 50  # one of so many products has none
SOLD_OUT = 10  # likewise


def shop_values(uids: Sequence[str], products: int, seed: int) -> list[Values]:
    """The values of NAMES of each uid, such as B000000012, of the sample of `products`, `seed`."""
    colour = invent_world(products, seed).colour
    return [(*_of_hash(uid), COLOURS[colour[int(uid[1:])]][0]) for uid in uids]


def _of_hash(uid: str) -> tuple[float | None, bool]:
    """The price, None for one of NO_PRICE products, and whether the product is in stock."""
    digest = hashlib.sha256(uid.encode()).digest()
    price, priced, stock = (int.from_bytes(digest[i : i + 4], "big") for i in (0, 4, 8))
    cents = CHEAPEST + 50 * (price % STEPS)
    return (cents / 100 if priced % NO_PRICE else None), stock % SOLD_OUT != 0
