"""Single embedded products, and how they come together to many and apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mufin.nn.embedding import Embedded

One = tuple[Embedded, ...]  # one product, embedded by each member


def joined(products: Sequence[One]) -> list[Embedded]:
    """The products, at least one, row for row, as each member embeds them."""
    return [_joined([product[m] for product in products]) for m in range(len(products[0]))]


def one_of(embedded: Sequence[Embedded], row: int) -> One:
    """A copy of the product at `row`, as each member embeds it."""
    return tuple(_one(member, row) for member in embedded)


def size_of(product: One) -> int:
    """Bytes of one product."""
    return sum(e.rows.nbytes + e.vectors.nbytes + 500 for e in product)


def _joined(parts: list[Embedded]) -> Embedded:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    searched = [part.search for part in parts if part.search is not None]
    return Embedded(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.modality for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate(searched) if len(searched) == len(parts) else None,
    )


def _one(embedded: Embedded, row: int) -> Embedded:
    start, end = embedded.offsets[row], embedded.offsets[row + 1]
    return Embedded(
        embedded.rows[start:end].copy(),
        embedded.modality[start:end].copy(),
        np.array([0, end - start]),
        embedded.vectors[row : row + 1].copy(),
        None if embedded.search is None else embedded.search[row : row + 1].copy(),
    )
