"""A few pictures out of the image store, without reading the others."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq


def stored_pictures(folder: Path, keys: set[str]) -> dict[str, bytes]:
    """{key: bytes} of those `keys` that `folder` (`part-*.parquet`) has: row groups are read where a key is in them."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, columns=["key"])["key"].to_pylist()
            if rows := [i for i, name in enumerate(names) if name in keys and name not in found]:
                contents = file.read_row_group(group, columns=["bytes"])["bytes"]
                found |= {names[i]: contents[i].as_py() for i in rows}
    return found
