"""What encoders read of the products, from the store: the arrays of `data/precomputed`.

The large arrays are sent once and stay there. A machine reads the rows of its part by range, and
holds what is small (which rows a product has) for all products.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mufin.artifacts.contents import contents_of
from mufin.artifacts.precomputed import Precomputed
from mufin.cluster.store import Store
from mufin.cluster.stored_rows import StoredArray, StoredRows
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.progress import progress
from mufin.ragged import Lists, offsets_of

TRANSFERS = 8  # files sent at the same time


@dataclass(frozen=True, slots=True)
class Inputs:
    """The large arrays of the modalities, by the files of the store that they are in."""

    modalities: list[str]
    text: list[StoredArray]
    images: list[StoredArray]
    products: int  # P

    @property
    def digests(self) -> set[str]:
        """The SHA-256 of all files."""
        return {array.digest for array in (*self.text, *self.images)}

    @property
    def per_product(self) -> float:
        """Bytes of a product, on average."""
        size = sum(array.shape[0] * array.row_bytes for array in (*self.text, *self.images))
        return size / max(self.products, 1)


def send_inputs(folder: Path, modalities: list[str], store: Store) -> Inputs:
    """Sends the arrays of `folder` that the modalities need, unless they are there."""
    precomputed, files = Precomputed(folder), contents_of(folder).files
    manifest = precomputed.manifest()
    text, images = {}, {}
    if "text" in modalities:
        text = {manifest["text"]["array"]: precomputed.text_inputs()}
    if "image" in modalities:
        images = dict(zip(manifest["image"]["shards"], precomputed.image_shards()))
    names = [*text, *images]
    with ThreadPoolExecutor(TRANSFERS) as threads:
        sent = threads.map(lambda name: store.put(folder / name, files[name][1]), names)
        list(progress(sent, "send", "files", len(names)))
    of_text, of_images = (
        [StoredArray.of(array, files[name][1]) for name, array in arrays.items()]
        for arrays in (text, images)
    )
    return Inputs(modalities, of_text, of_images, manifest["products"])


class PartReader:
    """Reads the inputs of some products; what is small is in `precomputed`, on this machine."""

    def __init__(self, store: Store, inputs: Inputs, precomputed: Precomputed):
        self.count, self.modalities = inputs.products, inputs.modalities
        if "text" in self.modalities:
            self.lengths, self.text = precomputed.token_lengths(), StoredRows(store, inputs.text)
            self.texts, self.ragged = precomputed.text_rows(), precomputed.has_ragged_tokens()
        if "image" in self.modalities:
            self.pictures, self.images = precomputed.image_rows(), StoredRows(store, inputs.images)
        if "lexical" in self.modalities:
            self.lexical = precomputed.lexical_rows()

    def read(self, products: np.ndarray) -> DescriptorStore:
        """A store of `products` (n,) alone, whose batches are those of all products' store."""
        text = images = None
        if "text" in self.modalities:
            of_products = self.texts.take(products)
            rows, at = np.unique(of_products.values, return_inverse=True)
            text = self._texts(rows), self.lengths[rows], Lists(of_products.offsets, at)
        if "image" in self.modalities:
            used = self.pictures.take(products)
            rows, at = np.unique(used.values, return_inverse=True)
            images = Lists(used.offsets, at), self.images.take(rows)
        lexical = self.lexical.take(products) if "lexical" in self.modalities else None
        return DescriptorStore.of_arrays(len(products), text=text, lexical=lexical, images=images)

    def _texts(self, rows: np.ndarray) -> np.ndarray:
        """The inputs of E_T of these rows of the text arrays."""
        if not self.ragged:
            return self.text.take(rows)
        positions, _ = Lists(offsets_of(self.lengths), np.zeros(0)).positions(rows)
        tokens = RaggedTokens(self.text.take(positions), self.lengths[rows])
        return tokens.take(np.arange(len(rows))).numpy()
