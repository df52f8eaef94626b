"""A trained model as it is served: networks, index, mix and catalog, of one run of the pipeline."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mufin import devices
from mufin.artifacts.attributes import UID, read_attributes
from mufin.artifacts.contents import contents_of
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table, wide
from mufin.artifacts.texts import further_texts
from mufin.params import Params, load_params
from mufin.ranking.mix import Mix
from mufin.ranking.mix_file import load_mix
from mufin.ranking.predictor import Predictor
from mufin.ranking.trained import load_predictor
from mufin.serving.pictures import Pictures


@dataclass(frozen=True)
class Model:
    """What `dvc repro` made in a folder; nothing in it changes."""

    home: Path
    params: Params
    precomputed: Precomputed
    predictor: Predictor
    mix: Mix
    products: pa.Table  # data/curated/products.parquet, `wide`
    attributes: pa.Table  # the columns that were kept, row for row with the products; `wide`
    texts: pa.ChunkedArray | None  # (P,) lists of texts beside the title; None: no product has any
    uids: list[str]  # of all products
    row_of: dict[str, int]  # by uid
    label_of_row: np.ndarray  # (P,) int32 the label that each product is, -1 for none
    pictures: Pictures
    id: str  # of index and mix, 12 hex digits
    fast: bool  # whether a faster runtime may encode new products; exporting to it takes seconds

    def title(self, row: int) -> str:
        return self.products["title"][row].as_py()

    def texts_of(self, row: int) -> tuple[str, ...]:
        """The texts beside the title, as the networks read them."""
        return () if self.texts is None else tuple(self.texts[row].as_py())

    @property
    def most_texts(self) -> int:
        """Texts that a product has at most, its title included."""
        return self.params.download.max_texts

    def category(self, row: int) -> tuple[str, ...]:
        return tuple(self.products["category"][row].as_py() or ())

    def picture_keys(self, row: int) -> tuple[str, ...]:
        return tuple(self.products["images"][row].as_py() or ())

    def attributes_of(self, row: int) -> dict[str, str | float | bool]:
        """The values that the product has."""
        found = {name: self.attributes[name][row].as_py() for name in self.attributes.column_names}
        return {name: value for name, value in found.items() if value not in (None, [])}

    def first_pictures(self) -> list[str]:
        """The key of the first picture of each label, '' for none."""
        images = self.products["images"].take(pa.array(self.predictor.index.products))
        lengths = pc.list_value_length(images).fill_null(0)
        first = [row[0].as_py() if n.as_py() else "" for row, n in zip(images, lengths)]
        return first


def load_model(home: Path, fast: bool = False) -> Model:
    """The model in the folder `home`; `fast` for a process that encodes many new products.

    Raises ArtifactError if a file is missing, is not as it was written, or if the files are of
    different runs; ParamsError for settings that are wrong.
    """
    params = load_params(home / "params.yaml")
    device, precision = devices.device(), devices.precision()
    products = wide(read_table(home / "data/curated/products.parquet", "products"))
    predictor = load_predictor(home, params.encoder.modalities, device, precision)
    mix = load_mix(home / "models/mix.json", home / "models/index")
    label_of_row = np.full(len(products), -1, np.int32)
    label_of_row[predictor.index.products] = np.arange(len(predictor.index))
    uids = products["uid"].to_pylist()
    attributes = wide(read_attributes(home / "data/curated").drop_columns([UID]))
    texts = further_texts(home / "data/curated")
    if texts is not None:
        texts = wide(pa.table({"texts": texts}))["texts"]
    _give_back()
    return Model(
        home=home,
        params=params,
        precomputed=Precomputed(home / "data/precomputed"),
        predictor=predictor,
        mix=mix,
        products=products,
        attributes=attributes,
        texts=texts,
        uids=uids,
        row_of={uid: row for row, uid in enumerate(uids)},
        label_of_row=label_of_row,
        pictures=Pictures(home / "data/raw/images"),
        id=_id(contents_of(home / "models/index").id, mix),
        fast=fast,
    )


def _give_back() -> None:
    """Returns what loading has freed to the system: the allocators keep 0.1 GB at 300K labels."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _id(index: str, mix: Mix) -> str:
    said = json.dumps([index, mix.weights()])
    return hashlib.sha256(said.encode()).hexdigest()[:12]
