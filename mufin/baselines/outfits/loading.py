"""Reads items, outfits and questions of a project folder for the rivals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin.artifacts.outfits import Outfits, read_outfits
from mufin.artifacts.tables import read_table
from mufin.baselines.outfits.items import Items, title_words
from mufin.corpus.image_store import read_pictures, stored_keys
from mufin.corpus.pixels import decode
from mufin.errors import MufinError

CHUNK = 256  # pictures read at once


@dataclass(frozen=True, slots=True)
class OutfitTask:
    """All that a row of Table 3 is made from."""

    items: Items
    outfits: Outfits


def outfit_task(project: Path, side: int) -> OutfitTask:
    """The task of `data/curated` and `data/raw/images` in the folder `project`.

    Pictures are decoded to `side` pixels, aspect kept, on white; the first one of an item is used,
    as all publications have one. The type of an item is its category. Raises MufinError if the data
    have no outfits.
    """
    curated = project / "data/curated"
    outfits = read_outfits(curated)
    if outfits is None:
        raise MufinError(
            f"{curated} has no outfits, which the rows of Table 3 need; set download.source to "
            "sample-outfits or polyvore and download.outfits.split, and run `dvc repro curate`"
        )
    table = read_table(curated / "products.parquet", "products")
    train = np.unique(outfits.sets.of("train").items.values)
    used = used_rows(outfits)
    types, num_types = type_codes(table["category"].to_pylist())
    pixels = first_pictures(table["images"].to_pylist(), used, project / "data/raw/images", side)
    words = title_words([title or "" for title in table["title"].to_pylist()], train)
    return OutfitTask(Items(pixels, words, types, num_types, used), outfits)


def used_rows(outfits: Outfits) -> np.ndarray:
    """(n,) int64 ascending: the products that are in an outfit, a question or an answer."""
    lists = (
        outfits.sets.items,
        outfits.questions.items,
        outfits.questions.answers,
        outfits.compatibility.items,
    )
    return np.unique(np.concatenate([part.values for part in lists]))


def type_codes(categories: list[list[str] | None]) -> tuple[np.ndarray, int]:
    """(N,) int64 the code of each category, whole, and how many there are."""
    names = np.array([" > ".join(category or []) for category in categories], dtype=np.str_)
    distinct, codes = np.unique(names, return_inverse=True)
    return codes.astype(np.int64), len(distinct)


def first_pictures(
    images: list[list[str] | None], used: np.ndarray, store: Path, side: int
) -> np.ndarray:
    """(N, side, side, 3) uint8: the first picture of each product of `used`, white if it has none.

    `images` are keys of the image `store`. A picture that cannot be decoded is white too. The rows
    of other products are not filled in, and take no memory.
    """
    pixels = np.zeros((len(images), side, side, 3), np.uint8)
    rows_of: dict[str, list[int]] = {}
    for row in used.tolist():
        pixels[row] = 255
        if keys := images[row]:
            rows_of.setdefault(keys[0], []).append(row)
    files, _ = stored_keys(store, np.array(list(rows_of), dtype=np.str_))
    for path, some in files.items():
        for pairs in read_pictures(path, some, CHUNK):
            for key, content in pairs:
                if isinstance(found := decode(content, side), np.ndarray):
                    pixels[rows_of[key]] = found
    return pixels
