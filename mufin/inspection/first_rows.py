"""The first rows of a catalog, as `mufin check` looks at them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from mufin.catalogs.forms import FORMS, located
from mufin.catalogs.locations import files_of
from mufin.catalogs.product import Product
from mufin.corpus.matching import normal
from mufin.errors import MufinError, shown
from mufin.inspection.catalog_columns import loose
from mufin.inspection.reading import Reading
from mufin.params import Params
from mufin.profiles import scalar

ROWS = 1000  # products that are read


def check_products(params: Params) -> Iterator[str]:
    """Yields what the first ROWS products and interactions hold; raises MufinError for faults."""
    s = params.download
    reading = Reading(s, ROWS)
    products = [product for product, _ in reading.products()]
    if reading.problem:
        raise MufinError(reading.problem)
    if reading.bad.bad and not s.bad_rows:
        raise MufinError(f"{reading.bad.first}, or set download.bad_rows")
    if not products:
        raise MufinError(f"download.location {shown(s.location)} holds no product")
    which = f"its {len(products):,} products" if reading.ended else f"the first {ROWS:,} products"
    pictures = sum(bool(product.images) for product in products)
    titles = sum(bool(product.title.strip()) for product in products)
    yield f"{shown(s.location)}: of {which}, {titles:,} have a title, {pictures:,} a picture"
    if not titles and not pictures:
        raise MufinError(
            f"no product of {shown(s.location)} has a title or a picture; look at download.columns"
        )
    yield from _check_modalities(params, titles, pictures, reading.ended)
    yield from _check_behaviour(params) if s.interactions.location else ()
    yield from _check_related(params, products, reading.ended)


def _check_modalities(params: Params, titles: int, pictures: int, ended: bool) -> Iterator[str]:
    """Whether products have what is encoded; a problem only where all were read."""
    s, encoder, lacks = params.download, params.encoder, []
    if not pictures and encoder.image.kind != "vectors":
        lacks.append(("picture", "images", ["image"], "text"))
    if not titles and not s.labels.location:  # labels that are no products have texts
        lacks.append(("title", "title", ["text", "lexical"], "image"))
    for what, column, readers, other in lacks:
        if not set(readers) & set(encoder.modalities):
            continue
        kept: list[str] = [name for name in encoder.modalities if name not in readers]
        rest = kept or [other]
        fault = (
            f"has a {what}, but encoder.modalities is {scalar(list(encoder.modalities))}; "
            f"set it to {scalar(rest)}"
        )
        if s.source == "catalog":
            fault += f", or download.columns.{column} to the column that has them"
        # Words of titles that are not there do not stop a run that has pictures.
        if ended and (readers[0] in encoder.modalities or not kept):
            raise MufinError(f"no product of {shown(s.location)} {fault}")
        yield f"no product of these {fault}"


def _check_related(params: Params, products: list[Product], ended: bool) -> Iterator[str]:
    """Whether some related ids are those of products; a problem only where all were read."""
    s = params.download
    related = [uid for product in products for uid in product.related]
    if s.labels.location:
        for file in files_of(s.labels.location, _never):
            yield f"{file.path} has labels"
        return
    if not related and s.interactions.location:
        return
    if not related and ended:
        raise MufinError(
            f"no product of {shown(s.location)} has related ids; set download.columns.related "
            "to their column, or download.interactions to orders, ratings or clicks"
        )
    ids = {product.uid for product in products}
    ids.update(other for product in products for other in product.other_ids)
    found = _found(related, ids, s.match_ids)
    yield f"related ids: {len(related):,}, of which {found:,} are among these products"
    if found or not ended or not related:
        return
    near = {loose(uid) for uid in ids}
    if any(loose(uid) in near for uid in related):
        raise MufinError(
            f"no related id is the id of a product, such as {shown(related[0])}, but some nearly "
            "are; `mufin inspect` names the setting download.match_ids that joins them"
        )
    if not s.interactions.location:
        raise MufinError(
            f"no related id is the id of a product, such as {shown(related[0])}; look at "
            "download.columns.related and download.columns.id"
        )


def _found(related: list[str], ids: Collection[str], matches: Collection[str]) -> int:
    """How many related ids are `ids`, compared as download.match_ids says."""
    if not matches:
        known = {uid.strip() for uid in ids}
        return sum(uid.strip() in known for uid in related)
    import polars as pl  # here: it takes a while to import, and few settings need it

    known = set(normal(pl.Series(list(ids), dtype=pl.String), matches))
    return sum(uid in known for uid in normal(pl.Series(related, dtype=pl.String), matches))


def _check_behaviour(params: Params) -> Iterator[str]:
    """Whether the first interactions can be read; raises MufinError for a missing column."""
    s = params.download
    if not s.interactions.basket and s.source in FORMS:
        files = files_of(located(s.source, s.interactions.location or "", True), _never)
    else:
        files = files_of(s.interactions.location or "", _never)
    reading = Reading(s, 0)
    count = sum(len(batch) for batch in islice(reading.interactions(ROWS), 1))
    if reading.others[0].bad and not s.bad_rows:
        raise MufinError(f"{reading.others[0].first}, or set download.bad_rows")
    if not count:
        raise MufinError(
            f"no row of {files[0].path} has a basket, an item and a weight above 0; look at "
            "download.interactions"
        )
    yield f"{files[0].path}: the first {count:,} interactions can be read"


def _never(url: str) -> Path:
    raise MufinError(f"{url} is a URL, which is not looked at")
