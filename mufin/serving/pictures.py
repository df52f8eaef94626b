"""Pictures of products by their keys, one at a time, out of the image store."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mufin.corpus.image_store import key_of
from mufin.errors import ArtifactError
from mufin.serving.remembered import Remembered

KEPT = 2**27  # bytes of pictures that are kept
DIGITS = 32  # of a key


class Pictures:
    """The image store in a folder; a model without pictures, or without the folder, has none."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.kept: Remembered[bytes] = Remembered(KEPT, len)

    def get(self, key: str) -> bytes | None:
        """The bytes of a picture, None if there is no such key.

        Raises ArtifactError for a damaged store.
        """
        if len(key) != DIGITS or not key.isascii():
            return None
        if (content := self.kept.get(key)) is not None:
            return content
        keys, places = self._places
        wanted = np.array([key.encode()], "S32")
        at = int(np.searchsorted(keys, wanted)[0])
        if at == len(keys) or keys[at] != wanted[0]:
            return None
        part, group, row = places[at]
        content = self._read(self._parts[part], int(group), int(row), key)
        self.kept.put(key, content)
        return content

    @cached_property
    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys in order, and (n, 3) the file, row group and row of each."""
        keys, places = [np.zeros(0, "S32")], [np.zeros((0, 3), np.int32)]
        for number, path in enumerate(self._parts):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=["key"])["key"].to_pylist()
                keys.append(np.array([name.encode() for name in names], "S32"))
                rows = np.arange(len(names))
                places.append(
                    np.stack([np.full_like(rows, number), np.full_like(rows, group), rows], 1)
                )
        every, where = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(every, kind="stable")
        return every[order], where[order]

    def _read(self, path: Path, group: int, row: int, key: str) -> bytes:
        try:
            contents = pq.ParquetFile(path).read_row_group(group, columns=["bytes"])["bytes"]
            content = contents[row].as_py()
        except (OSError, ValueError, IndexError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}); run `dvc checkout`") from None
        if content is None or key_of(content) != key:
            raise ArtifactError(f"{path} is damaged: the picture {key} has other bytes")
        return content
