"""Questions to a recommender: products asked about, and which products may be answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mufin.errors import MufinError

Scalar = str | float | bool
# A value, a list of values, or bounds such as {"gte": 5, "lt": 20}, per column
Where = Mapping[str, Scalar | list[Scalar] | Mapping[str, float]]


class QueryError(MufinError):
    """A question that cannot be answered as it is; `field` is the part of it that is wrong."""

    def __init__(self, field: str, text: str):
        super().__init__(text)
        self.field = field


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product that is not in the catalog."""

    title: str = ""  # '' for none
    pictures: tuple[bytes, ...] = ()  # encoded, such as the bytes of JPEG files
    category: tuple[str, ...] = ()  # from the widest to the narrowest, as in the catalog
    texts: tuple[str, ...] = ()  # beside the title, such as a description; '' is no text


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question: the best k products for the products `uids` and `new` together (a basket)."""

    uids: tuple[str, ...] = ()  # products of the catalog
    new: NewProduct | None = None
    avoid: tuple[str, ...] = ()  # products of the catalog, whose scores count against an answer
    k: int = 10  # answers, >= 1
    candidates: tuple[str, ...] | None = None  # only these may be answers; None: all labels
    exclude: tuple[str, ...] = ()  # these may not
    where: Where | None = None  # only products with these values may
    fold: bool = False  # of the variants of one product, answer with the best alone
    modalities: tuple[str, ...] | None = None  # of the products asked about; None: all
    mix: Mapping[str, float] | None = None  # weights in place of those in models/mix.json
    reasons: bool = False  # whether answers say which descriptors they are due to
