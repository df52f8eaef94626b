"""`data/raw/texts.parquet`: the texts beside the title as found, row for row with products."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mufin.artifacts.tables import SCHEMAS


class TextWriter:
    """Writes the texts of products to `path`, and counts them."""

    def __init__(self, path: Path):
        self.writer = pq.ParquetWriter(path, SCHEMAS["raw_texts"], compression="zstd")
        self.products = self.texts = 0

    def add(self, texts: Sequence[list[str]]) -> None:
        """The texts of some products, of each in their order."""
        self.writer.write_table(pa.table({"texts": texts}, schema=SCHEMAS["raw_texts"]))
        self.products += sum(map(bool, texts))
        self.texts += sum(map(len, texts))

    def close(self) -> dict[str, int]:
        """End the file; the products that have such texts, and the texts of all."""
        self.writer.close()
        return {"products_with_further_texts": self.products, "further_texts": self.texts}
