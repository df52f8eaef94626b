"""Tensors of a safetensors file, memory-mapped: only what is read comes into memory."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np
from safetensors import safe_open

KINDS = {
    "BOOL": np.dtype(bool),
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}


class MappedTensors(dict[str, np.ndarray]):
    """The tensors of the file `path` by name, read-only.

    The file must not be changed while they are in use; one that replaces it has no effect. Raises
    SafetensorError, OSError, KeyError or ValueError if the file is broken.
    """

    def __init__(self, path: Path):
        super().__init__()
        with safe_open(path, "np"):  # checks the whole header: the places of all tensors
            pass
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            self.file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header.pop("__metadata__", None)
        for name, said in header.items():
            start, end = (8 + length + place for place in said["data_offsets"])
            kind, shape = KINDS[said["dtype"]], tuple(said["shape"])
            array = np.frombuffer(self.file, np.uint8, end - start, start) if end > start else b""
            tensor = np.frombuffer(array, kind).reshape(shape)
            self[name] = tensor if tensor.flags.aligned else tensor.copy()

    def release(self) -> None:
        """Gives back the memory of what was read; it is read again from the file when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)
