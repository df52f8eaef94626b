"""Titles, pictures, products and relations as they should be (METHOD, Task and data: quirks seen in the wild)."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import numpy as np

from mufin.corpus.lookup import Lookup, hashes
from mufin.ragged import Lists

if TYPE_CHECKING:
    import polars as pl

ENTITY = re.compile(r"&(?:#\d{1,9}|#[xX][0-9a-fA-F]{1,9}|\w+);")
HIDDEN = re.compile(
    r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE
)  # with its text
TAG = re.compile(
    r"</?[a-zA-Z][^<>]*>|<![^<>]*>"
)  # not `<3 and >`: a tag's name follows its bracket at once
OPEN_TAG = re.compile(  # a tag without an end: what follows is no title. It shows by being
    r"<(?:/[a-zA-Z]"  # a closing one; by a name that is no word or size, unlike `Size <S`
    r"|(?:blockquote|br|div|font|html|iframe|img|script|span|strong|style|svg|tbody|td|textarea|tr)(?=[\s/]|$)"
    r"|[a-zA-Z][\w:-]*\s(?:[^<>]*\s)?[\w:-]+\s*=)[^<>]*$",
    re.IGNORECASE,
)  # by an attribute, unlike `Bolt <M8 zinc`
TAG_END = re.compile(r'^[^<>]*"\s*/>')  # ` Magazines" />`: the end of a tag that was cut off
SCRIPT = re.compile(r"getTime\(\)|function\s*\(\w*\)\s*\{")  # a page's script in place of its title
BREAKS = re.compile(r"[\s\u0000-\u001f\u007f-\u009f\u200b\ufeff]+")
LONGEST = 10_000  # characters of a title that are looked at; encoders read some dozens of words
SUSPECT = r"[<>&\x00-\x1f\x7f-\x9f\u200b\ufeff{]|getTime|\s\s|^\s|\s$|[^\S ]"


def clean_title(title: str | None) -> str:
    """The title without entities, markup, control characters and blanks at the ends; '' where nothing is left.

    Entities are resolved until none is left (`&amp;amp;` occurs), before tags go: an escaped tag is a tag.
    """
    text, before = (title or "")[:LONGEST], None
    while text != before:  # ends: each change makes it shorter, or resolves an entity
        before = text
        text = ENTITY.sub(lambda m: html.unescape(m[0]), text)
        for markup in (HIDDEN, TAG, OPEN_TAG, TAG_END):
            text = markup.sub(" ", text)
        text = BREAKS.sub(" ", text).strip()
    return "" if SCRIPT.search(text) else text


def clean_titles(titles: pl.Series) -> pl.Series:
    """`clean_title` of each; only those that hold something suspect cost Python's time."""
    titles = titles.fill_null("").str.slice(0, LONGEST)
    suspect = np.flatnonzero(titles.str.contains(SUSPECT).to_numpy())
    return (
        titles.scatter(suspect, [clean_title(t) for t in titles.gather(suspect)])
        if len(suspect)
        else titles
    )


def image_keys(images: pl.Series, urls: Lookup, keys: pl.Series) -> pl.Series:
    """Keys in place of references: order kept, the same content once a product, references without a picture gone.

    `keys` holds the key of each text of `urls`.
    """
    import polars as pl

    flat = pl.DataFrame({"row": np.arange(len(images)), "url": images}).explode("url").drop_nulls()
    at = urls.find(hashes(flat["url"]))
    found = pl.DataFrame({"row": flat["row"].filter(at >= 0), "key": keys.gather(at[at >= 0])})
    grouped = found.group_by("row", maintain_order=True).agg(
        pl.col("key").unique(maintain_order=True)
    )
    every = pl.DataFrame({"row": np.arange(len(images))})
    return every.join(grouped, on="row", how="left", maintain_order="left")["key"].fill_null([])


def best_rows(group: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """(G,) the row that speaks for each group 0..G-1: the first of its highest quality."""
    order = np.lexsort((-quality, group))  # stable: first come, first served within a quality
    return order[np.unique(group[order], return_index=True)[1]]


def clean_relations(
    source: np.ndarray, target: np.ndarray, num_products: int
) -> tuple[Lists, dict[str, int]]:
    """Relations of each product, sorted and distinct, and how many of them were dropped, by reason.

    `source` and `target` (nnz,) are product rows, all inside the catalog.
    """
    own = source == target
    keys = source[~own].astype(np.int64) * num_products + target[~own]
    distinct = np.unique(keys)
    rows, values = np.divmod(distinct, max(num_products, 1))
    return Lists.of_pairs(rows, values, num_products), {
        "self relations": int(own.sum()),
        "repeated relations": len(keys) - len(distinct),
    }
