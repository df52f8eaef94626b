"""Rows that are computed when they are read, where all of them would not fit in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MANY = 4096  # rows; a read of more is followed by `release`


class MadeRows:
    """A matrix (R, D) of float32 whose rows `make(numbers)` computes; it reads like an array.

    `release` is called after many rows were read: it gives back the memory of their sources.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        shape: tuple[int, int],
        make: Callable[[np.ndarray], np.ndarray],
        release: Callable[[], None] | None = None,
    ):
        self.shape, self.make, self.release = shape, make, release

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """The rows `index`: a slice, or numbers (n,)."""
        numbers = np.arange(len(self))[index] if isinstance(index, slice) else index
        rows = self.make(numbers)
        if self.release is not None and len(numbers) > MANY:
            self.release()
        return rows

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)
