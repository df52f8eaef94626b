"""What E_T reads of the texts, made in parts: whole batches of texts of similar length.

A part that is on the disk is not made again by a stage that was killed. A part depends on nothing
but its tokens, the encoder and the size of a batch, so each can be made on another machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mufin.artifacts.arrays import RowFile
from mufin.artifacts.files import read_json, write_json
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.nn.encoder import Encoder
from mufin.nn.frozen import frozen_inputs
from mufin.progress import progress

PART = 2**17  # tokens of a part, with padding; 200 MB of activations of DistilBERT
DONE = "titles.json"  # the parts that are on the disk


@dataclass(frozen=True, slots=True)
class TokenisedTexts:
    """Tokens (R, T) int32 padded with 0, or ragged, and their lengths (R,); 0 = no text."""

    tokens: np.ndarray | RaggedTokens
    lengths: np.ndarray

    @property
    def most(self) -> int:
        """The tokens that `text_inputs.npy` has room for."""
        if isinstance(self.tokens, RaggedTokens):
            return int(self.lengths.max(initial=1))
        return self.tokens.shape[1]

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens (n, longest) and lengths (n,) int64 of these rows, of at least one token each."""
        counts = torch.from_numpy(np.maximum(self.lengths[rows], 1).astype(np.int64))
        if isinstance(self.tokens, RaggedTokens):
            return self.tokens.take(rows), counts
        return torch.from_numpy(self.tokens[rows, : int(counts.max())]), counts

    def flat(self, rows: np.ndarray) -> np.ndarray:
        """(sum of lengths,) int32: the tokens of these rows in turn, without padding."""
        if isinstance(self.tokens, RaggedTokens):
            return self.tokens.lists.take(rows).values
        lengths = self.lengths[rows]
        padded = self.tokens[rows, : int(lengths.max(initial=0))]
        return padded[np.arange(padded.shape[1]) < lengths[:, None]]


@dataclass(frozen=True, slots=True)
class FrozenPart:
    """Runs the frozen part of E_T."""

    encoder: Encoder
    size: int  # texts of a batch
    device: torch.device
    precision: torch.dtype

    def of(self, texts: TokenisedTexts, rows: np.ndarray) -> np.ndarray:
        """(n, H) descriptors or (n, T, H) activations of a batch; T is its longest text."""
        return frozen_inputs(self.encoder, texts.batch(rows), self.device, self.precision)

    def each(self, texts: TokenisedTexts) -> Iterator[np.ndarray]:
        """What `of` gives for all texts, a batch after another."""
        rows = np.arange(len(texts.lengths))
        for start in range(0, len(rows), self.size):
            yield self.of(texts, rows[start : start + self.size])


class TextInputs:
    """`text_inputs.npy` in `folder`: (R, H) descriptors or (R, T, H) activations of all texts.

    It is written in parts, in any order. A part is a range of starts of batches in `order`, where
    texts of similar length are neighbours, so that little of a batch is padding. Parts that an
    earlier try has left in `folder` stay.
    """

    def __init__(self, texts: TokenisedTexts, folder: Path, size: int):
        self.texts, self.folder = texts, folder
        self.order = np.argsort(texts.lengths, kind="stable")
        done = read_json(folder / DONE) if (folder / DONE).exists() else []
        self.done = {range(*part) for part in done}
        parts = parts_of(texts.lengths[self.order], size)
        self.missing = [part for part in parts if part not in self.done]
        self.file: RowFile | None = None

    def rows(self, part: range) -> np.ndarray:
        """The rows of a part's texts."""
        return self.order[part.start : part.stop]

    def write(self, start: int, values: np.ndarray) -> None:
        """Writes the batch that starts there."""
        if self.file is None:
            width = (self.texts.most, values.shape[-1]) if values.ndim == 3 else values.shape[1:]
            shape = (len(self.order), *width)
            out, resume = Precomputed(self.folder), len(self.done) > 0
            self.file = out.text_input_writer(values.dtype, shape, resume)
        for row, value in zip(self.order[start : start + len(values)], values):
            self.file.write(row, value)

    def finish(self, part: range) -> None:
        """The batches of a part have been written, and are on the disk when this returns."""
        assert self.file is not None
        self.file.sync()
        self.done.add(part)
        write_json(sorted((p.start, p.stop, p.step) for p in self.done), self.folder / DONE)

    def close(self) -> None:
        """All parts are finished."""
        if self.file is not None:
            self.file.close()


def make_text_inputs(texts: TokenisedTexts, folder: Path, frozen: FrozenPart) -> None:
    """Writes `text_inputs.npy` in `folder`, except the parts that are there."""
    out, size = TextInputs(texts, folder, frozen.size), frozen.size
    batches = [(part, start) for part in out.missing for start in part]
    for part, start in progress(batches, "frozen text", f"batches of {size} texts"):
        out.write(start, frozen.of(texts, out.order[start : start + size]))
        if start == part[-1]:
            out.finish(part)
    out.close()


def parts_of(lengths: np.ndarray, size: int) -> list[range]:
    """The starts of the batches of each part of texts whose lengths (R,) ascend.

    A part has batches of `size` texts up to `PART` tokens, or up to one batch more.
    """
    starts = np.arange(0, len(lengths), size)
    ends = np.minimum(starts + size, len(lengths))
    tokens = (ends - starts) * np.maximum(lengths[ends - 1], 1)  # padded to the last, the longest
    part = (np.cumsum(tokens) - tokens) // PART
    firsts = np.flatnonzero(np.diff(part, prepend=-1))
    cuts = [*starts[firsts].tolist(), len(lengths)]
    return [range(start, stop, size) for start, stop in zip(cuts, cuts[1:])]
