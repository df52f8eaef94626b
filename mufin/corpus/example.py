"""An example of a catalog: products of the built-in sample as JSON lines and picture files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mufin.artifacts.publication import publish
from mufin.corpus.sample import sample_catalog
from mufin.corpus.sample_shop import NAMES, shop_values

SEED = 0


def write_example(folder: Path, products: int) -> Iterator[str]:
    """Writes `products.jsonl` and `img/` into a new folder; yields what was written, as lines.

    It is the built-in sample of so many products, without its faults: no dead or broken pictures,
    no id twice, and no product without title and picture. Raises ArtifactError if the folder is
    there and was not made by this.
    """
    rows, images, _ = sample_catalog(products, SEED)
    whole = {name: content for name, content in images.items() if _is_whole(content)}
    with publish(folder) as scratch:
        (scratch / "img").mkdir(parents=True)
        for name, content in whole.items():
            (scratch / name).write_bytes(content)
        lines = [json.dumps(row) for row in _cleaned(rows, whole, products)]
        (scratch / "products.jsonl").write_text("\n".join(lines) + "\n")
    yield f"{folder / 'products.jsonl'}: {len(lines)} products, such as"
    yield lines[0]
    yield f"{folder / 'img'}: {len(whole)} pictures"


def _cleaned(rows: list[dict], whole: dict[str, bytes], products: int) -> Iterator[dict]:
    """The products with an id, a title or a picture, and what a shop knows besides."""
    distinct = {row["ASIN"]: row for row in rows}
    values = shop_values(list(distinct), products, SEED)
    for row, of_shop in zip(distinct.values(), values):
        pictures = [name for name in row["images"] if name in whole]
        if row["title"] or pictures:
            yield row | {"images": pictures} | dict(zip(NAMES, of_shop))


def _is_whole(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True
