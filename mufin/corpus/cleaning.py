"""Cleaning of titles, image references, rows with the same id, and relations.

The rules come from faults of real catalogs and of the Amazon metadata dump that
MM-AmazonTitles-300K was curated from (MUFIN Sec. 4, Datasets; App. B).
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import numpy as np

from mufin.corpus.lookup import Lookup, hashes
from mufin.ragged import MOST, Lists, offsets_of

if TYPE_CHECKING:
    import polars as pl

ENTITY = re.compile(r"&(?:#\d{1,9}|#[xX][0-9a-fA-F]{1,9}|\w+);")
# Elements that are removed together with the text in them.
HIDDEN = re.compile(
    r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->",
    re.DOTALL | re.IGNORECASE,
)
# The name of a tag follows its bracket at once, so `<3 and >` is not a tag.
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<![^<>]*>")
# A tag that never ends: it and all text after it are removed. `Size <S` and `Bolt <M8 zinc` must
# stay, so one of three signs is required, one per line: it is a closing tag, its name is a common
# HTML tag, or it has an attribute.
OPEN_TAG = re.compile(
    r"<(?:/[a-zA-Z]"
    r"|(?:blockquote|br|div|font|html|iframe|img|script|span|strong|style|svg|tbody|td|textarea|tr)"
    r"(?=[\s/]|$)"
    r"|[a-zA-Z][\w:-]*\s(?:[^<>]*\s)?[\w:-]+\s*=)[^<>]*$",
    re.IGNORECASE,
)
# The end of a tag whose start was cut off, as in ` Magazines" />`.
TAG_END = re.compile(r'^[^<>]*"\s*/>')
# JavaScript of the product's page in the place of its title.
SCRIPT = re.compile(r"getTime\(\)|function\s*\(\w*\)\s*\{")
# Runs of white space, control characters, zero-width spaces and byte order marks.
BREAKS = re.compile(r"[\s\u0000-\u001f\u007f-\u009f\u200b\ufeff]+")
PAIRS = 2**22  # related products that are looked at at once
LONGEST = 10_000  # characters of a title that are kept; the encoders read a few dozen words
# Matches every title that `clean_title` would change; a needless match costs only time.
SUSPECT = r"[<>&\x00-\x1f\x7f-\x9f\u200b\ufeff{]|getTime|\s\s|^\s|\s$|[^\S ]"


def clean_title(title: str | None) -> str:
    """The title without entities, markup and control characters; '' if nothing is left.

    Blanks at the ends are removed, and other runs of blanks become one. A title of more than
    `LONGEST` characters is cut first.
    """
    text, before = (title or "")[:LONGEST], None
    # Entities can be nested (`&amp;amp;`) and can hide tags (`&lt;b&gt;`), so both steps repeat
    # until nothing changes. The loop ends, because each round that changes the text resolves an
    # entity or makes the text shorter.
    while text != before:
        before = text
        text = ENTITY.sub(lambda m: html.unescape(m[0]), text)
        for markup in (HIDDEN, TAG, OPEN_TAG, TAG_END):
            text = markup.sub(" ", text)
        text = BREAKS.sub(" ", text).strip()
    return "" if SCRIPT.search(text) else text


def clean_titles(titles: pl.Series) -> pl.Series:
    """(n,) strings: `clean_title` of each title; null counts as ''.

    Only titles that match `SUSPECT` are cleaned in Python, since most titles need no cleaning.
    """
    titles = titles.fill_null("").str.slice(0, LONGEST)
    suspect = np.flatnonzero(titles.str.contains(SUSPECT).to_numpy())
    if not len(suspect):
        return titles
    return titles.scatter(suspect, [clean_title(t) for t in titles.gather(suspect)])


def image_keys(images: pl.Series, urls: Lookup, keys: pl.Series) -> pl.Series:
    """(n,) list<string>: the pictures of each product as keys of the image store, in their order.

    `images` (n,) list<string> holds the references of each product. `urls` holds the references
    that gave a picture, and `keys` (len(urls),) the key of each. A reference without a picture is
    dropped, and so is a picture that the product already has under another reference.
    """
    import polars as pl

    flat = pl.DataFrame({"row": np.arange(len(images)), "url": images}).explode("url").drop_nulls()
    at = urls.find(hashes(flat["url"]))
    found = pl.DataFrame({"row": flat["row"].filter(at >= 0), "key": keys.gather(at[at >= 0])})
    grouped = found.group_by("row", maintain_order=True).agg(
        pl.col("key").unique(maintain_order=True)
    )
    # The join brings back the products without any picture, which `explode` or the filter removed.
    every = pl.DataFrame({"row": np.arange(len(images))})
    return every.join(grouped, on="row", how="left", maintain_order="left")["key"].fill_null([])


def best_rows(group: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """(G,) int64: for each group 0..G-1 the row of the highest quality, the first of them on a tie.

    `group` and `quality` are (n,): the group of each row, and a number to compare within a group.
    """
    order = np.lexsort((-quality, group))  # stable, so rows of equal quality keep their order
    ordered = group[order]
    return order[np.append(True, ordered[1:] != ordered[:-1])[: len(order)]]


def clean_relations(
    source: np.ndarray, target: np.ndarray, num_products: int
) -> tuple[Lists, dict[str, int]]:
    """The related products of each product, ascending and distinct, and the dropped pairs.

    `source` and `target` (nnz,) are the two products of each relation, all in [0, num_products).
    Returns `num_products` rows of product numbers and {reason: count}.
    """
    return relations_of_keys(pair_keys(source, target, num_products), num_products)


def pair_keys(source: np.ndarray, target: np.ndarray, num_products: int) -> np.ndarray:
    """(nnz,) int64: each pair as one number, which sorts by source, then by target."""
    keys = source.astype(np.int64)
    keys *= num_products
    keys += target
    return keys


def relations_of_keys(keys: np.ndarray, num_products: int) -> tuple[Lists, dict[str, int]]:
    """`clean_relations` of `pair_keys`, which are sorted in place: there can be hundreds of
    millions.
    """
    keys.sort()
    values = np.empty(len(keys), np.int32 if num_products <= MOST else np.int64)
    lengths = np.zeros(num_products, np.int64)
    count = own = repeated = 0
    for start in range(0, len(keys), PAIRS):
        some = keys[start : start + PAIRS]
        source, target = np.divmod(some, num_products)
        other = source != target
        new = np.diff(some, prepend=keys[start - 1] if start else -1) != 0
        kept, first = other & new, source[0]
        own += int((~other).sum())
        repeated += int((other & ~new).sum())
        end = count + int(kept.sum())
        values[count:end] = target[kept]
        lengths[first : source[-1] + 1] += np.bincount(
            source[kept] - first, minlength=source[-1] + 1 - first
        )
        count = end
    dropped = {"self relations": own, "repeated relations": repeated}
    return Lists(offsets_of(lengths), values[:count]), dropped
