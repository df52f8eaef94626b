"""The products that the page or the picture shows: titles and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin.artifacts.curated import Split
from mufin.corpus.decoding import decode_each
from mufin.corpus.image_store import stored_pictures

NO_TITLE = "(no title)"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Products, labels and test split, and the pictures of the few products that are shown."""

    products: pa.Table
    labels: np.ndarray  # (L,) product of each label
    test: Split
    image_store: Path  # data/raw/images
    pictures: dict[int, list[np.ndarray]] = field(default_factory=dict)  # (S, S, 3) uint8 each

    def title(self, product: int) -> str:
        return self.products["title"][int(product)].as_py() or NO_TITLE

    def load_pictures(self, products: set[int], size: int) -> None:
        """Read these products' pictures, `size` pixels a side, in one pass over the store.

        A picture that cannot be decoded is left out, as it is from the bags; where the store is not
        on this machine, all are. Raises ArtifactError for a damaged store.
        """
        keys = {p: self.products["images"][p].as_py() for p in products - self.pictures.keys()}
        wanted = {k for own in keys.values() for k in own}
        found = stored_pictures(self.image_store, wanted) if self.image_store.exists() else {}
        for product, own in keys.items():
            decoded = decode_each((found[k] for k in own if k in found), size)
            self.pictures[product] = [p for p in decoded if isinstance(p, np.ndarray)]
