"""Titles and relations as they should be (METHOD, Task and data: quirks seen in the wild)."""

from __future__ import annotations

import html
import re

import numpy as np

from pipeline.ragged import Lists

TAG = re.compile(r"<[^<>]*>")
OPEN_TAG = re.compile(r"<\s*/?\s*[a-zA-Z][^<>]*$")      # `<span class=...` without an end: what follows is no title
BREAKS = re.compile(r"[\s\u0000-\u001f\u007f-\u009f\u200b\ufeff]+")


def clean_title(title: str | None) -> str:
    """The title without entities, markup, control characters and blanks at the ends; '' where nothing is left.

    Entities are resolved until none is left (`&amp;amp;` occurs), before and after tags go: an escaped tag is a tag.
    """
    text = title or ""
    for _ in range(4):
        plain = OPEN_TAG.sub(" ", TAG.sub(" ", html.unescape(text)))
        if plain == text:
            break
        text = plain
    return BREAKS.sub(" ", text).strip()


def clean_relations(source: np.ndarray, target: np.ndarray, num_products: int) -> tuple[Lists, dict[str, int]]:
    """Relations of each product, sorted and distinct, and what was dropped by reason.

    `source` and `target` (nnz,) are product rows, target -1 where the id is not in the catalog.
    """
    dangling, own = target < 0, source == target
    keys = source[~dangling & ~own] * np.int64(num_products) + target[~dangling & ~own]
    distinct = np.unique(keys)
    rows, values = distinct // max(num_products, 1), distinct % max(num_products, 1)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_products))]).astype(np.int64)
    dropped = {"dangling relations": int(dangling.sum()), "self relations": int((own & ~dangling).sum()),
               "repeated relations": len(keys) - len(distinct)}
    return Lists(offsets, values), dropped
