"""What the products are and how they relate: counts, degrees, duplicates, what would be dropped."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mufin.catalogs.locations import File
from mufin.catalogs.product import Product
from mufin.corpus.cleaning import clean_relations, clean_titles
from mufin.corpus.lookup import Lookup, hashes
from mufin.corpus.matching import Unknown, normal
from mufin.corpus.relations import Relations, united
from mufin.errors import shown
from mufin.inspection.reading import Reading
from mufin.ragged import Lists

if TYPE_CHECKING:
    import polars as pl

ROWS = 10_000  # products that are Python objects at once
SHOWN = 3  # products that are shown as parsed


@dataclass(slots=True)
class Count:
    """How many, and one of them."""

    number: int = 0
    example: str = ""

    def add(self, number: int, example: str) -> None:
        self.number += number
        self.example = self.example or (example if number else "")


@dataclass(slots=True)
class Figures:
    """Of the rows of products that were read, in the order of the files."""

    matches: tuple[str, ...] = ()  # how ids are compared
    first: list[tuple[Product, File]] = field(default_factory=list)  # as parsed
    rows: int = 0
    ended: bool = False  # whether these are all
    products: int = 0  # P, different ids that have a title or a picture
    labels: int = 0  # L, labels that are no products; their numbers begin at P
    images: int = 0  # references
    urls: bool = False  # whether some are URLs
    without_title: Count = field(default_factory=Count)
    without_image: Count = field(default_factory=Count)
    empty: Count = field(default_factory=Count)  # without both; dropped
    markup: Count = field(default_factory=Count)  # titles that are markup alone
    same_id: Count = field(default_factory=Count)
    same_title: Count = field(default_factory=Count)
    related: int = 0  # related ids
    found: int = 0  # of these
    unknown: Unknown | None = None
    relations: Relations | None = None  # (P + L,) of columns
    repeated: dict[str, int] = field(default_factory=dict)
    uids: pl.Series | None = None  # (rows,) the ids as found
    lookup: Lookup | None = None  # of ids, then of other ids
    product_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # of each key

    def find(self, ids: pl.Series) -> np.ndarray:
        """(n,) int64: the product of each id, -1 for none; -2 for one that would be dropped."""
        assert self.lookup is not None
        number = self.lookup.find(hashes(normal(ids, self.matches)))
        return np.where(number >= 0, self.product_of[number], -1)


@dataclass
class _Gathered:
    """Parts of columns, one per batch of rows."""

    uids: list[pl.Series] = field(default_factory=list)
    titles: list[np.ndarray] = field(default_factory=list)  # hashes
    quality: list[np.ndarray] = field(default_factory=list)  # has a title, plus has a picture
    others: list[pl.Series] = field(default_factory=list)
    other_rows: list[np.ndarray] = field(default_factory=list)
    related: list[pl.Series] = field(default_factory=list)
    related_rows: list[np.ndarray] = field(default_factory=list)


def figures_of(reading: Reading) -> Figures:
    """Reads the products, whose ids are compared as `download.match_ids` says."""
    out, parts = Figures(matches=tuple(reading.s.match_ids)), _Gathered()
    products = reading.products()
    while batch := list(itertools.islice(products, ROWS)):
        if not out.rows:
            out.first = batch[:SHOWN]
        _add(out, parts, [product for product, _ in batch])
    out.ended = reading.ended
    if out.rows:
        _number(out, parts, reading.labels())
        _relate(out, parts, reading.s.labels.prefix if out.labels else "")
    return out


def _add(out: Figures, parts: _Gathered, batch: list[Product]) -> None:
    import polars as pl

    rows = np.arange(out.rows, out.rows + len(batch))
    raw = pl.Series("title", [p.title for p in batch], pl.String)
    titles = clean_titles(raw)
    has_title = (titles.str.strip_chars() != "").to_numpy()
    has_image = np.array([bool(p.images) for p in batch])
    uids = normal(pl.Series("uid", [p.uid for p in batch], pl.String))

    def count(what: Count, where: np.ndarray) -> None:
        at = np.flatnonzero(where)
        what.add(len(at), shown(uids[int(at[0])], 40) if len(at) else "")

    count(out.without_title, ~has_title)
    count(out.without_image, ~has_image)
    count(out.empty, ~has_title & ~has_image)
    count(out.markup, ~has_title & (raw.str.strip_chars() != "").to_numpy())
    images = [image for p in batch for image in p.images]
    out.images += len(images)
    out.urls = out.urls or any(image[:4].lower() == "http" for image in images)
    out.rows += len(batch)

    parts.uids.append(uids)
    parts.titles.append(np.where(has_title[:, None], hashes(titles), 0))
    parts.quality.append(has_title.astype(np.int8) + has_image)
    for values, texts, lengths in (
        (parts.others, parts.other_rows, [p.other_ids for p in batch]),
        (parts.related, parts.related_rows, [p.related for p in batch]),
    ):
        values.append(pl.Series("id", [text for some in lengths for text in some], pl.String))
        texts.append(np.repeat(rows, [len(some) for some in lengths]))


def _number(out: Figures, parts: _Gathered, labels: list[str]) -> None:
    """Numbers the products: different ids with a title or a picture, in the order of the rows.

    Ids that are `labels`, and no products, have the numbers after these.
    """
    import polars as pl

    uids, quality = pl.concat(parts.uids), np.concatenate(parts.quality)
    others = pl.concat(parts.others)
    out.uids = uids
    more = pl.Series("label", labels, pl.String)
    keys = [hashes(normal(ids, out.matches)) for ids in (uids, others, more)]
    out.lookup = Lookup(np.concatenate(keys))
    group = out.lookup.group[: len(uids)]
    ids = int(group.max()) + 1
    first = np.full(ids, len(uids))
    np.minimum.at(first, group, np.arange(len(uids)))
    again = np.flatnonzero(first[group] != np.arange(len(uids)))
    out.same_id.add(len(again), shown(uids[int(again[0])], 40) if len(again) else "")
    kept = np.zeros(ids, bool)
    kept[group[quality > 0]] = True
    out.products = int(kept.sum())
    number = np.where(kept, np.cumsum(kept) - 1, -2)
    # A key is the id of rows, or another id, which belongs to the first product that has it.
    out.product_of = np.full(len(out.lookup), -1)
    rows = np.concatenate(parts.other_rows)[::-1]
    after = len(uids) + len(others)
    out.product_of[out.lookup.group[len(uids) : after][::-1]] = number[group[rows]]
    label_keys = np.unique(out.lookup.group[after:])
    out.labels = len(label_keys)
    out.product_of[label_keys] = out.products + np.arange(out.labels)
    out.product_of[:ids] = number
    _same_titles(out, np.concatenate(parts.titles)[first], uids.gather(first))


def _same_titles(out: Figures, titles: np.ndarray, uids: pl.Series) -> None:
    """Counts the different products that have the title of an earlier one."""
    titled = np.flatnonzero(titles.any(1))
    if not len(titled):
        return
    group = Lookup(titles[titled]).group
    seen = np.unique(group, return_index=True)[1]
    again = np.setdiff1d(np.arange(len(titled)), seen)
    if len(again):
        at = titled[int(again[0])]
        earlier = titled[int(seen[group[again[0]]])]
        out.same_title.add(
            len(again), f"{shown(uids[int(at)], 40)} and {shown(uids[int(earlier)], 40)}"
        )


def _relate(out: Figures, parts: _Gathered, prefix: str) -> None:
    """Counts the related ids that are found, and keeps the relations; `prefix` is of labels."""
    import polars as pl

    unknown = Unknown(lambda: iter(parts.uids))
    group = out.lookup.group if out.lookup else np.zeros(0, np.int64)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for ids, rows in zip(parts.related, parts.related_rows):
        there = (ids.str.strip_chars() != "").to_numpy()
        ids, rows = ids.filter(pl.Series(there)), rows[there]
        target, source = (
            out.find(prefix + ids.str.strip_chars() if prefix else ids),
            out.product_of[group[rows]],
        )
        if out.labels:  # the id of a product is no label
            target = np.where(target < out.products, -1, target)
        out.related += len(ids)
        out.found += int((target != -1).sum())
        unknown.add(ids.filter(pl.Series(target == -1)))
        both = (target >= 0) & (source >= 0)
        pairs.append((source[both], target[both]))
    a, b = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    lists, out.repeated = clean_relations(a, b, out.products + out.labels)
    out.relations, out.unknown = Relations(lists), unknown


def with_more(out: Figures, more: Relations) -> Relations:
    """The relations of columns and those by behaviour, as the stage curate unites them."""
    assert out.relations is not None
    return united(out.relations, more)


def reciprocity(lists: Lists) -> float:
    """The share of relations whose reverse is a relation too."""
    n, rows = len(lists), lists.rows()
    if not len(lists.values):
        return 0.0
    return float(np.isin(lists.values * n + rows, rows * n + lists.values).mean())


def degrees(lists: Lists) -> dict[str, float]:
    """Related products per product: none, min, median, mean, 90 % and max."""
    lengths = lists.lengths()
    if not len(lengths):
        return {}
    return {
        "none": int((lengths == 0).sum()),
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "mean": float(lengths.mean()),
        "most": int(np.quantile(lengths, 0.9, method="inverted_cdf")),
        "max": int(lengths.max()),
    }
