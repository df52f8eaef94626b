"""Which tool wrote a table, from its column names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SEPARATORS = re.compile(r"[\s_-]+")
# Without the full name of the setting, which `download` puts in the place of another (`_naming`).
AS_PRODUCTS = "give it as products: location in the section download, or `mufin import {source}`"
AS_INTERACTIONS = (
    "give it as download.interactions.location, or to `mufin import {source}` with --interactions"
)


@dataclass(frozen=True, slots=True)
class Sign:
    """Columns that together name the tool and the kind of file."""

    source: str  # of download.source
    kind: str  # products or interactions
    what: str
    columns: tuple[str, ...]  # as `folded` gives them

    @property
    def use(self) -> str:
        """What to do with such a file."""
        text = AS_PRODUCTS if self.kind == "products" else AS_INTERACTIONS
        return text.format(source=self.source)


def _sign(source: str, kind: str, what: str, columns: str) -> Sign:
    return Sign(source, kind, what, tuple(columns.split(", ")))


SIGNS = (  # the first one whose columns are all there; those with more special columns come first
    _sign("shopify", "products", "Shopify's export of products", "handle, title, variant sku"),
    _sign("shopify", "products", "Shopify's export of products", "handle, title, image src"),
    _sign("shopify", "products", "Shopify's export of products", "url handle, title"),
    _sign("shopify", "interactions", "Shopify's export of orders", "name, lineitem name"),
    _sign("woocommerce", "products", "WooCommerce's export of products", "type, sku, name, images"),
    _sign("google-merchant", "products", "a Google Merchant feed", "id, title, image link"),
    _sign("hm", "products", "H&M's articles.csv", "article id, prod name"),
    _sign("hm", "interactions", "H&M's transactions_train.csv", "t dat, customer id, article id"),
    _sign("movielens", "products", "MovieLens' movies.csv", "movieid, title, genres"),
    _sign("movielens", "interactions", "MovieLens' ratings.csv", "userid, movieid, rating"),
    _sign(
        "amazon-2023", "interactions", "Amazon's reviews of 2023", "user id, parent asin, rating"
    ),
    _sign("amazon-2023", "products", "Amazon's metadata of 2023", "main category, parent asin"),
    _sign("amazon-2018", "interactions", "Amazon's reviews of 2018 or 2014", "reviewerid, asin"),
    _sign(
        "amazon-2018", "products", "Amazon's metadata of 2018", "asin, title, also buy, category"
    ),
)


def folded(name: object) -> str:
    """A column name without what differs between versions of a tool: case, blanks, `_` and `-`."""
    return SEPARATORS.sub(" ", str(name)).strip().casefold()


def recognised(names: Iterable[object]) -> Sign | None:
    """The tool and the kind of file with these columns; None if no sign fits."""
    there = {folded(name) for name in names}
    return next((sign for sign in SIGNS if there.issuperset(sign.columns)), None)
