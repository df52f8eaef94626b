"""Arrays of a part, as one file in a folder of the store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mufin.cluster.store import Store

FILE = "arrays.safetensors"

Arrays = dict[str, np.ndarray]


def make_arrays(store: Store, name: str, make: Callable[[], Arrays]) -> None:
    """The folder `name` of the store has what `make` gives; it may be there already."""
    if not store.has_folder(name):
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
            save_file(make(), Path(scratch, FILE))
            store.put_folder(Path(scratch), name)


def fetch_arrays(store: Store, name: str) -> Arrays:
    """The arrays in the folder `name` of the store; raises MufinError if the store fails."""
    with tempfile.TemporaryDirectory() as scratch:
        store.get_folder(name, Path(scratch))
        return load_file(Path(scratch, FILE))
