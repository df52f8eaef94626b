"""`texts.parquet`: the further texts of products beside their titles, such as descriptions.

Each of them is one text descriptor of the product's bag (MUFIN Sec. 3, Notation). The file is there
only if download.columns.texts names columns.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.contents import contents_of
from mufin.artifacts.tables import read_table
from mufin.errors import ArtifactError

NAME = "texts.parquet"


def further_texts(folder: Path) -> pa.ChunkedArray | None:
    """(P,) list<string>: the texts of each product of `data/curated` beside its title, in order.

    Row for row with `products.parquet`; an empty list for a product with a title alone. None if the
    folder has no such file: then products have at most one text. Raises ArtifactError if the file
    is missing though it was written, is not as it was written, or is of other products.
    """
    path, products = folder / NAME, folder / "products.parquet"
    if not path.exists() and NAME not in contents_of(folder).files:
        return None
    table = read_table(path, "texts")
    rows = pq.read_metadata(products).num_rows
    if len(table) != rows:
        raise _other(path, f"it has {len(table)} rows for {rows} products")
    if not table["uid"].equals(read_table(products, "products", ["uid"])["uid"]):
        raise _other(path, "its ids are not those of products.parquet")
    return table["texts"]


def _other(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} is of other products ({why}); delete it and run `dvc repro`")
