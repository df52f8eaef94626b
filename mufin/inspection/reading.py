"""The products and interactions of the files, as the stage download reads them, up to a limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mufin.catalog_params import Download
from mufin.catalogs.bad_rows import BadRows
from mufin.catalogs.forms import FORMS, located
from mufin.catalogs.interactions import Columns, interactions, of_form
from mufin.catalogs.label_texts import label_texts
from mufin.catalogs.locations import File, files_of
from mufin.catalogs.notes import Notes
from mufin.catalogs.own_catalog import Names, OwnCatalog
from mufin.catalogs.product import Product
from mufin.errors import MufinError
from mufin.inspection.catalog_columns import loose

RELATED = 5_000_000  # related ids that are kept
LABELS = 2_000_000  # that are no products
ALL_BUT_NONE = 1 - 1e-9  # a share of bad rows: each is dropped and counted


def no_image(content: bytes) -> str:
    """In place of a store of images."""
    return f"an image of {len(content)} bytes"


@dataclass(slots=True)
class Reading:
    """The products of the settings `s`, of which `limit` are read at most."""

    s: Download
    limit: int
    keep: Callable[[bytes], str] = no_image
    notes: Notes = field(default_factory=Notes)
    bad: BadRows = field(init=False)  # of the products
    others: list[BadRows] = field(default_factory=list)  # of interactions and labels
    ended: bool = False  # whether all products were read
    problem: str = ""  # why reading stopped before the end, if it did

    def __post_init__(self) -> None:
        self.bad = BadRows(self.notes, ALL_BUT_NONE)

    def _new_bad(self) -> BadRows:
        self.others.append(BadRows(self.notes, ALL_BUT_NONE))
        return self.others[-1]

    def products(self) -> Iterator[tuple[Product, File]]:
        """The products with their files; a fault of a file ends them and is kept."""
        related = count = 0
        try:
            for product, file in self._all():
                if count == self.limit or related > RELATED:
                    return
                count += 1
                related += len(product.related)
                yield product, file
        except MufinError as error:
            if not count:
                raise
            self.problem = str(error)
            return
        self.ended = True

    def _all(self) -> Iterator[tuple[Product, File]]:
        s = self.s
        if s.source == "catalog":
            yield from self._own()
            return
        files = files_of(located(s.source, s.location or ""), _no_url)
        read, paths = FORMS[s.source].products, [f.path for f in files]
        how = s.columns.kept()
        for product in read(paths, self.notes, encoding=s.encoding, bad=self.bad, **how):
            yield product, files[0]

    def _own(self) -> Iterator[tuple[Product, File]]:
        s, files = self.s, files_of(self.s.location or "", _no_url)
        names = Names(
            s.columns.id,
            s.columns.title,
            s.columns.image_columns(),
            s.columns.related_weights(),
            s.columns.category,
            s.columns.attributes,
            s.columns.further_texts(),
        )
        optional = {"related"} if s.interactions.location else set()
        if s.image_vectors.location or not s.max_images:
            optional.add("images")
        catalog = OwnCatalog(
            names,
            self.notes,
            encoding=s.encoding,
            bad=self.bad,
            keep=self.keep,
            optional=optional,
        )
        for file in files:
            for product in catalog.products(file.path, len(files) == 1):
                yield product, file
        catalog.check()

    def labels(self) -> list[str]:
        """The ids of labels that are no products, with their prefix; [] if products are labels."""
        place = self.s.labels
        if not place.location:
            return []
        files = [f.path for f in files_of(place.location, _no_url)]
        columns = (place.id, place.text)
        bad = self._new_bad()
        rows = label_texts(files, columns, place.prefix, self.notes, bad, self.s.encoding)
        return [uid for uid, _ in itertools.islice(rows, LABELS)]

    def interactions(self, limit: int) -> Iterator[pa.RecordBatch]:
        """Up to `limit` interactions, in batches of their schema."""
        place, bad = self.s.interactions, self._new_bad()
        if self.s.source == "catalog" or place.basket:
            assert place.basket and place.item
            files = [f.path for f in files_of(place.location or "", _no_url)]
            columns = Columns(place.basket, place.item, place.time, place.weight)
            batches = interactions(files, columns, self.notes, bad=bad, encoding=self.s.encoding)
        else:
            where = located(self.s.source, place.location or "", True)
            files = [f.path for f in files_of(where, _no_url)]
            read = FORMS[self.s.source].interactions
            assert read is not None
            rows = read(files, self.notes, encoding=self.s.encoding, bad=bad)
            batches = of_form(itertools.islice(rows, limit), self.notes)
        for batch in batches:
            yield batch.slice(0, limit)
            limit -= len(batch)
            if limit <= 0:
                return


def _no_url(url: str) -> Path:
    raise MufinError(f"{url} is a URL, which is not looked at")


def known_ids(s: Download, limit: int) -> set[str]:
    """The ids of the first products, `loose`, with the other ids that relations name them by."""
    found: set[str] = set()
    for product, _ in Reading(s, limit).products():
        found.add(loose(product.uid))
        found.update(map(loose, product.other_ids))
    return found - {""}
