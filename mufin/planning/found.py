"""Sizes of the data that a folder already holds, from footers and small files."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from mufin.artifacts.files import artifact_json
from mufin.artifacts.texts import NAME as TEXTS


def sizes_in(home: Path) -> dict[str, float]:
    """{field of `Sizes`: value} that data/curated, data/raw and data/precomputed say.

    Raises ArtifactError for a file that is damaged.
    """
    out: dict[str, float] = {}
    curated = home / "data/curated"
    if (curated / "contents.json").exists():
        out |= _curated(curated)
    if (home / "data/precomputed/manifest.json").exists():
        out |= _precomputed(home / "data/precomputed/manifest.json")
    if (home / "data/raw/contents.json").exists():
        out = _raw(home / "data/raw") | out
    return out


def _curated(folder: Path) -> dict[str, float]:
    counts = {name: _rows(folder / f"{name}.parquet") for name in ("products", "labels")}
    splits = {name: _rows(folder / f"{name}.parquet") for name in ("train", "valid", "test")}
    references = _values(folder / "products.parquet", "images")
    pairs, products = _values(folder / "train.parquet", "labels"), max(counts["products"], 1)
    unseen = folder / "unseen/labels.parquet"
    return _texts(folder, products) | {
        **counts,
        **splits,
        "unseen": _rows(unseen) if unseen.exists() else 0,
        "pictures": references / products,
        "label_pictures": references / products,
        "images": references,
        "relations": pairs / max(splits["train"], 1),
    }


def _raw(folder: Path) -> dict[str, float]:
    """Of `data/raw`, where there is no `data/curated`: an upper bound of what curate keeps."""
    products = _rows(folder / "products.parquet")
    references = _values(folder / "products.parquet", "images")
    out = {"products": float(products), "pictures": references / max(products, 1)}
    out |= _texts(folder, max(products, 1))
    store = list((folder / "images").glob("part-*.parquet"))
    if count := sum(_rows(path) for path in store):
        out["images"] = count
        out["picture_bytes"] = sum(path.stat().st_size for path in store) / count
    return out


def _texts(folder: Path, products: int) -> dict[str, float]:
    """Texts per product where there are some beside titles, which all products are said to have."""
    path = folder / TEXTS
    return {"texts": 1 + _values(path, "texts") / products} if path.is_file() else {}


def _precomputed(manifest: Path) -> dict[str, float]:
    said, out = artifact_json(manifest), {}
    if count := (said.get("image") or {}).get("count"):
        out["images"] = float(count)
    if tokens := (said.get("text") or {}).get("mean_tokens"):
        out["tokens"] = max(float(tokens) - 2, 1)  # [CLS] and [SEP] are counted there
    if texts := (said.get("text") or {}).get("texts"):
        out["texts"] = texts / max(said["products"], 1)
    for name in ("terms", "vocabulary"):
        if count := (said.get("text") or {}).get(name):
            out[name] = float(count)
    return out


def _rows(path: Path) -> int:
    from mufin.artifacts.tables import batch_count

    return batch_count(path, 1)


def _values(path: Path, column: str) -> int:
    """Values in a column of lists, by the footer of the file, without those of empty lists."""
    _rows(path)  # raises ArtifactError where the file cannot be read
    metadata, count = pq.read_metadata(path), 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if chunk.path_in_schema.partition(".")[0] == column:
                empty = chunk.statistics.null_count if chunk.statistics else 0
                count += chunk.num_values - (empty or 0)
    return count
