"""The distinct products of a catalog with their relations, as the stage curate gathers them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mufin.artifacts.tables import batch_count, table_batches
from mufin.corpus.clean_rows import BATCHES, CleanRows
from mufin.corpus.cleaning import best_rows, pair_keys, relations_of_keys
from mufin.corpus.lookup import Lookup
from mufin.corpus.matching import Unknown
from mufin.corpus.relations import Relations, gathered, no_relations, summed
from mufin.errors import MufinError
from mufin.progress import progress

if TYPE_CHECKING:
    import polars as pl

UNKNOWN, NEAR = "dangling relations", "related ids that nearly match one"
GONE = "relations of or to dropped products"
NO_TEXT, SAME_LABEL = "labels without a text", "labels with the id of another"
UNUSED = "labels that no product is related to"


@dataclass(frozen=True, slots=True)
class Catalog:
    """P distinct products, then the labels that are no products, in the order of the raw tables."""

    source: CleanRows
    rows: np.ndarray  # (P,) int64 ascending, the row of each product in the source
    of_id: np.ndarray  # (ids,) int64, the product of each id, -1 if it was dropped
    first_label: int  # products from this number on are labels alone; P if there are none
    relations: Relations
    dropped: dict[str, int]  # what was removed so far, by reason
    examples: dict[str, str] = field(default_factory=dict)  # of some of the reasons

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_labels(self) -> bool:
        """Whether the labels are no products."""
        return self.source.products < len(self.source.tokens)

    def find(self, uids: pl.Series) -> np.ndarray:
        """(n,) int64: the product of each id, -1 if there is none."""
        number = self.source.find(uids)
        return np.where(number >= 0, self.of_id[number], -1)

    def only(self, keep: np.ndarray) -> tuple[Catalog, np.ndarray]:
        """The catalog of the products `keep`, ascending, and the new number of each product.

        A removed product has the number -1.
        """
        position = np.full(len(self), -1, np.int64)
        position[keep] = np.arange(len(keep))
        return replace(
            self,
            rows=self.rows[keep],
            of_id=np.where(self.of_id >= 0, position[self.of_id], -1),
            first_label=int(np.searchsorted(keep, self.first_label)),
            relations=self.relations.restricted(keep, position),
        ), position

    def without_unused_labels(self) -> Catalog:
        """Without the labels that no product is related to; counts them."""
        if not self.has_labels:
            return self
        used = np.zeros(len(self), bool)
        used[: self.first_label] = True
        used[self.relations.lists.values] = True
        dropped = self.dropped | {UNUSED: self.dropped.get(UNUSED, 0) + int((~used).sum())}
        return replace(self.only(np.flatnonzero(used))[0], dropped=dropped)

    def without_ids(self) -> Catalog:
        """The same, but ids are not found any more: these lookups are most of the memory."""
        none = np.zeros(0, np.int64)
        keys = Lookup(np.zeros((0, 2), np.uint64))
        source = replace(self.source, keys=keys, group=none, owner=none)
        return replace(self, source=source, of_id=none)

    def rows_alone(self) -> Catalog:
        """Without ids and relations, which the splits replace."""
        return replace(self.without_ids(), relations=no_relations(0))


def distinct(source: CleanRows, raw: Path, keep_all: bool) -> Catalog:
    """The distinct products that have a text or a picture, without relations yet.

    Of several rows with one id, the first with title and picture is taken, else the first with
    either. Other texts in place of a title count for less. `keep_all` keeps products that have
    none: the rows of a released split are fixed.
    """
    described, titled = source.described(), source.tokens > 0
    quality = described.astype(np.int8) + titled + 2 * (source.images > 0).astype(np.int8)
    if not quality[: source.products].any():
        raise MufinError(
            f"none of the {source.products} rows of {raw}/products.parquet has a title or a "
            "picture; look at download.columns and at the reasons in metrics/download.json"
        )
    rows = np.sort(best_rows(source.group, quality))
    is_label, empty = rows >= source.products, quality[rows] == 0
    dropped = dict(source.dropped)
    dropped["rows with the id of another"] = source.products - int((~is_label).sum())
    lost = 0 if keep_all else int((empty & ~is_label).sum())
    dropped["products with neither title nor picture"] = lost
    if source.products < len(source.group):
        all_labels = len(source.group) - source.products
        dropped[SAME_LABEL] = all_labels - int(is_label.sum())
        dropped[NO_TEXT] = int((empty & is_label).sum())
        empty = empty & (is_label | (not keep_all))
    elif keep_all:
        empty = np.zeros(len(rows), bool)
    rows = rows[~empty]
    of_id = np.full(source.ids, -1, np.int64)
    of_id[source.group[rows]] = np.arange(len(rows))
    first_label = int(np.searchsorted(rows, source.products))
    return Catalog(source, rows, of_id, first_label, no_relations(len(rows)), dropped)


def related(raw: Path, catalog: Catalog, prefix: str = "") -> Catalog:
    """The catalog with the relations that its related ids say; `prefix` is put before these.

    All rows of an id count, also those that `distinct` did not take: they can have other relations.
    """
    unknown = Unknown(lambda: catalog.source.texts(catalog.has_labels))
    gone, weighted = 0, False
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for rows, ids, weight in _related_ids(raw, prefix):
        number = catalog.source.find(ids)
        b = np.where(number >= 0, catalog.of_id[number], -1)
        if catalog.has_labels:  # the id of a product is no label
            number[(b >= 0) & (b < catalog.first_label)] = -1
        inside = number >= 0
        unknown.add(ids.filter(~inside))
        there = inside & (b >= 0) & (catalog.of_id[catalog.source.group[rows]] >= 0)
        gone += int((inside & ~there).sum())
        rows, b = rows[there], b[there]
        if weight is None:
            weight = np.broadcast_to(np.float32(1), len(rows))  # takes no memory
        else:
            weighted = True
            rows, b, weight = summed(rows, b, weight[there])
            weight[weight == 0] = 1  # a row without weights, in which an id can be repeated
        a = catalog.of_id[catalog.source.group[rows]]
        pairs.append((a.astype(np.int32), b.astype(np.int32), weight))
    unknown.forget()
    if weighted:
        a, b, weight = map(np.concatenate, zip(*pairs))
        pairs.clear()  # as large as the three arrays
        relations, repeated = gathered(a, b, weight, len(catalog))
    else:
        lists, repeated = relations_of_keys(_keys(pairs, len(catalog)), len(catalog))
        relations = Relations(lists)
    dropped = catalog.dropped | {UNKNOWN: unknown.count, GONE: gone} | repeated
    return noted(replace(catalog, relations=relations, dropped=dropped), unknown, UNKNOWN, NEAR)


def _keys(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]], products: int) -> np.ndarray:
    """`pair_keys` of all (source, target, weight); empties the list, to bound the memory."""
    end = sum(len(source) for source, _, _ in pairs)
    keys = np.empty(end, np.int64)
    while pairs:
        source, target, _ = pairs.pop()
        keys[end - len(source) : end] = pair_keys(source, target, products)
        end -= len(source)
    return keys


def _related_ids(
    raw: Path, prefix: str
) -> Iterator[tuple[np.ndarray, pl.Series, np.ndarray | None]]:
    """(rows of the raw table, ids, weights) of the related ids of a batch.

    The weights are None where no row of the batch has any, and 0 in a row that has none.
    """
    import polars as pl

    start, names, path = 0, ["related", "weights"], raw / "products.parquet"
    batches = table_batches(path, "raw_products", names)
    for batch in progress(batches, "relations", BATCHES, batch_count(path)):
        table = pl.DataFrame(batch)
        lengths = table["related"].list.len().fill_null(0).to_numpy().astype(np.int64)
        given = table["weights"].list.len().fill_null(0).to_numpy()
        if len(wrong := np.flatnonzero((given > 0) & (given != lengths))):
            raise MufinError(
                f"{raw}/products.parquet row {start + wrong[0] + 1} has {given[wrong[0]]} weights "
                f"of {lengths[wrong[0]]} related ids; run download again"
            )
        rows = np.repeat(np.arange(len(table)), lengths)
        ids = table["related"].filter(pl.Series(lengths > 0)).explode()
        weight = None
        if given.any():
            weight = np.zeros(len(rows), np.float32)
            flat = table["weights"].filter(pl.Series(given > 0)).explode()
            weight[given[rows] > 0] = flat.fill_null(1).to_numpy()
        there = ids.is_not_null()
        if not there.all():
            rows, ids = rows[there.to_numpy()], ids.filter(there)
            weight = None if weight is None else weight[there.to_numpy()]
        yield rows + start, _prefixed(prefix, ids), weight
        start += len(table)


def noted(catalog: Catalog, unknown: Unknown, reason: str, near: str) -> Catalog:
    """The catalog with the examples of unknown ids, and how many of these nearly match one."""
    examples, dropped = dict(catalog.examples), dict(catalog.dropped)
    if unknown.count:
        examples[reason] = unknown.example()
    if unknown.near:
        dropped[near], examples[near] = unknown.near, unknown.near_example
    return replace(catalog, dropped=dropped, examples=examples)


def _prefixed(prefix: str, ids: pl.Series) -> pl.Series:
    return prefix + ids.str.strip_chars() if prefix else ids
