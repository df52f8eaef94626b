"""Tokens of texts of any length in one flat array, read as padded rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mufin.ragged import Lists, offsets_of


class RaggedTokens:
    """The tokens of R texts: `tokens` (sum of lengths,) int32 in turn, and `lengths` (R,)."""

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray):
        self.lists = Lists(offsets_of(lengths), tokens)
        self.like = torch.zeros((0, 0), dtype=torch.int32)  # of what `take` returns

    def take(self, rows: np.ndarray) -> Tensor:
        """(len(rows), tokens of the longest) int32, padded with 0; of at least one token."""
        texts = self.lists.take(np.asarray(rows, np.int64))
        lengths = texts.lengths()
        out = np.zeros((len(texts), int(lengths.max(initial=1))), np.int32)
        out[np.arange(out.shape[1]) < lengths[:, None]] = texts.values
        return torch.from_numpy(out)
