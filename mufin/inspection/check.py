"""What `mufin check` looks at beside the settings: the catalog's first rows, and local encoders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mufin.catalogs.forms import FORMS, located
from mufin.catalogs.locations import files_of
from mufin.catalogs.product import Product
from mufin.corpus.fetch import is_url
from mufin.errors import MufinError, shown
from mufin.inspection.catalog_columns import loose
from mufin.inspection.reading import Reading
from mufin.params import ImageEncoderParams, Params, TextEncoderParams

ROWS = 1000  # products that are read
LOCAL = "local-dir:"  # before a folder, in names of timm
GIVEN = ("pretrained", "random")  # weights that are no path


def check_catalog(params: Params) -> Iterator[str]:
    """Yields what the beginning of the catalog holds; relative paths begin in the current folder.

    Looks at the first ROWS products, the names of columns, and whether some related ids are found;
    at folders of encoders; never at the network. Raises MufinError for what stages would refuse.
    """
    yield from _check_encoders(params)
    s = params.download
    if s.source == "sample":
        yield f"the catalog is the built-in one of {s.sample.products:,} products"
        return
    for name, location in (
        ("download.location", s.location),
        ("download.interactions.location", s.interactions.location),
        ("download.labels.location", s.labels.location),
    ):
        urls = [item for item in _items(location) if is_url(item)]
        if urls:
            yield f"{name} has the URL {shown(urls[0])}, which is not looked at here"
            return
    if s.source not in ("catalog", *FORMS):  # a released set, which only the stage reads
        for item in _items(s.location):
            found = "exists" if os.path.exists(os.path.expanduser(item)) else "does not exist here"
            yield f"download.location {shown(item)} {found}"
        return
    yield from _check_products(params)


def _items(location: str | list[str] | None) -> list[str]:
    return location if isinstance(location, list) else [location] if location else []


def _check_products(params: Params) -> Iterator[str]:
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
    yield from _check_behaviour(params) if s.interactions.location else ()
    yield from _check_related(params, products, reading.ended)


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
    ids = {product.uid.strip() for product in products}
    ids.update(other for product in products for other in product.other_ids)
    found = sum(uid in ids for uid in related)
    yield f"related ids: {len(related):,}, of which {found:,} are among these products"
    if found or not ended or not related:
        return
    near = {loose(uid) for uid in ids}
    if any(loose(uid) in near for uid in related) and not s.match_ids:
        raise MufinError(
            f"no related id is the id of a product, such as {shown(related[0])}, but some nearly "
            "are; `mufin inspect` names the setting download.match_ids that joins them"
        )
    if not s.match_ids and not s.interactions.location:
        raise MufinError(
            f"no related id is the id of a product, such as {shown(related[0])}; look at "
            "download.columns.related and download.columns.id"
        )


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


# Encoders


def _check_encoders(params: Params) -> Iterator[str]:
    """Raises MufinError for a folder or a file of an encoder that is not there."""
    encoder = params.encoder
    part: ImageEncoderParams | TextEncoderParams
    for name, part in (("image", encoder.image), ("text", encoder.text)):
        if name not in encoder.modalities or part.kind == "vectors":
            continue
        setting = f"encoder.{name}"
        if part.weights not in GIVEN and not os.path.exists(os.path.expanduser(part.weights)):
            raise MufinError(
                f"{setting}.weights is {shown(part.weights)}, which does not exist; set it to "
                "pretrained, random or the path of a file"
            )
        if part.weights == "random":
            continue
        folder = Path(part.name.removeprefix(LOCAL)).expanduser()
        if folder.is_dir():
            yield f"{setting}.name is the folder {folder}"
        elif part.name.startswith((LOCAL, "/", "./", "../", "~")):
            raise MufinError(
                f"{setting}.name is {shown(part.name)}, a folder that does not exist; correct the "
                "path, or set it to the name of a model"
            )
        else:
            yield f"{setting}.name is the model {part.name}, fetched unless it is on the machine"
