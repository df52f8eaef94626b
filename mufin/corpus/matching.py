"""How ids are compared: the setting `download.match_ids`, and ids that nearly match."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mufin.corpus.lookup import Lookup, hashes
from mufin.errors import shown

if TYPE_CHECKING:
    import polars as pl

MATCHES = ("case", "blanks", "zeros", "unicode")  # the differences that a normal form can leave out


def normal(ids: pl.Series, matches: Collection[str] = ()) -> pl.Series:
    """(n,) strings: the ids in the form in which they are compared, null for null.

    Blanks at the ends never count. Of `matches`, `unicode` joins other code points of the same
    characters (NFKC), `blanks` removes all blanks, `case` takes lower case, and `zeros` removes
    zeros before a first digit.
    """
    if "unicode" in matches:
        ids = ids.str.normalize("NFKC")
    ids = ids.str.replace_all(r"\s+", "") if "blanks" in matches else ids.str.strip_chars()
    if "case" in matches:
        ids = ids.str.to_lowercase()
    return ids.str.replace(r"^0+(\d)", "${1}") if "zeros" in matches else ids


def difference(a: str, b: str) -> list[str]:
    """The fewest of MATCHES that make two ids equal; all of them if nothing does."""
    import polars as pl

    pair = pl.Series([a, b])
    for size in range(len(MATCHES)):
        for matches in itertools.combinations(MATCHES, size):
            if normal(pair, matches).n_unique() == 1:
                return list(matches)
    return list(MATCHES)


class Unknown:
    """Counts ids that name nothing: how many, two of them, and how many nearly match a known one.

    `known()` yields the known ids in batches; it is called only if an id is unknown.
    """

    def __init__(self, known: Callable[[], Iterator[pl.Series]]) -> None:
        self.known = known
        self.count = self.near = 0
        self.examples: list[str] = []
        self.near_example = ""
        self._lookup: Lookup | None = None

    def add(self, ids: pl.Series) -> None:
        """Count `ids` (n,) strings, none of which is known."""
        if not len(ids):
            return
        self.count += len(ids)
        # Once per distinct id: a catalog names the same unknown id many times.
        distinct = ids.alias("id").to_frame().group_by("id", maintain_order=True).len()
        texts = distinct["id"]
        if len(self.examples) < 2:
            self.examples = list(dict.fromkeys([*self.examples, *texts.head(2)]))[:2]
        if self._lookup is None:
            self._lookup = Lookup(np.concatenate([np.zeros((0, 2), np.uint64), *self._known()]))
        near = self._lookup.find(hashes(normal(texts, MATCHES)))
        self.near += int(distinct["len"].to_numpy()[near >= 0].sum())
        if not self.near_example and (near >= 0).any():
            at = int(np.flatnonzero(near >= 0)[0])
            self.near_example = self._example(texts[at], int(near[at]))

    def forget(self) -> None:
        """Free the lookup of known ids; another unknown id would make it again."""
        self._lookup = None

    def example(self) -> str:
        """`'00015', '00010'`, or '' if none was unknown."""
        return ", ".join(shown(text, 40) for text in self.examples)

    def _known(self) -> Iterator[np.ndarray]:
        return (hashes(normal(ids, MATCHES)) for ids in self.known())

    def _example(self, unknown: str, number: int) -> str:
        """`'00015' is not '15': download.match_ids: [zeros] would join them`."""
        assert self._lookup is not None
        row, start = int(np.flatnonzero(self._lookup.group == number)[0]), 0
        for ids in self.known():
            if row < start + len(ids):
                other = ids[row - start]
                names = ", ".join(difference(unknown, other))
                return (
                    f"{shown(unknown, 40)} is not {shown(other, 40)}: download.match_ids: "
                    f"[{names}] would join them"
                )
            start += len(ids)
        return ""
