"""The texts of products: a title each, and further ones where the catalog has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.ragged import Lists, offsets_of


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of P products; each is a descriptor of its own (MUFIN Sec. 3, Notation).

    Without further texts, row p is the title of product p, '' if it has none. Else the rows are all
    texts that are not empty, those of a product in turn, its title first.
    """

    titles: list[str]  # (P,), '' for none
    further: list[list[str]] | None  # (P,); None: no product can have any
    all: list[str]  # (R,)
    rows: Lists  # (P,) lists of row numbers in `all`

    @classmethod
    def of(cls, titles: list[str], further: list[list[str]] | None) -> Texts:
        """From (P,) titles and (P,) lists of further texts."""
        if further is None:
            one = np.arange(len(titles) + 1)
            return cls(titles, None, titles, Lists(one, one[:-1]))
        texts = [
            [text for text in (title, *more) if text]
            for title, more in zip(titles, further, strict=True)
        ]
        flat = [text for some in texts for text in some]
        counts = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(titles, further, flat, Lists(offsets_of(counts), np.arange(len(flat))))

    def of_products(self, products: np.ndarray) -> list[str]:
        """The texts of products, those of each in turn."""
        return [self.all[row] for row in self.rows.take(products).values]
