"""E_T over the titles of a batch, group by group (`mufin.corpus.title_groups`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from mufin.corpus.descriptors import DescriptorBatch
from mufin.corpus.title_groups import by_length
from mufin.nn.recomputed import InPieces


class PictureReader(Protocol):
    """What lets E_T read the pictures of a product with its title: early fusion, VisualBERT."""

    # (n,) int64 > 0: the tokens that each product takes, of `lengths` (n,) and `seen` (n, m)
    def sizes(self, lengths: Tensor, seen: Tensor) -> Tensor: ...


def encoded_titles(
    encoder: nn.Module | InPieces,
    inputs: Tensor,
    lengths: Tensor | None,
    groups: tuple[tuple[int, int], ...],
) -> Tensor:
    """The descriptors (n, width) of n titles in `groups` of (titles, longest), one after another.

    `inputs` (n, T, ...) and `lengths` (n,) are what the encoder takes. Each group is cut to its
    longest title. With no group or one, the encoder is given all titles as they are.
    """
    if len(groups) < 2:
        return encoder(inputs, lengths)
    assert lengths is not None
    counts = [count for count, _ in groups]
    parts = zip(inputs.split(counts), lengths.split(counts), groups)
    return torch.cat([encoder(text[:, :longest], n) for text, n, (_, longest) in parts])


def fused_titles(
    read: Callable[..., Tensor],
    inputs: Tensor,
    lengths: Tensor,
    pictures: Tensor,
    seen: Tensor,
    sizes: Tensor,
) -> Tensor:
    """The vectors (n, width) of n titles with their pictures, in groups of similar size.

    `read` is E_T with pictures, called as `read(inputs, lengths, pictures, seen, longest)`, and
    `sizes` (n,) are those of its `PictureReader`. The groups carry their pictures, and `longest` is
    the largest size of a group; with one group it is left out, and E_T is given all titles as they
    are. The sizes are known on the device alone, since modality dropout has been drawn there: a GPU
    is waited for, as in `Mufin._fused_bags` before.
    """
    order, groups = by_length(sizes.cpu().numpy())
    if len(groups) < 2:
        return read(inputs, lengths, pictures, seen)
    at = torch.from_numpy(order).to(inputs.device)
    parts = zip(at.split([count for count, _ in groups]), groups)
    out = [
        read(inputs[part], lengths[part], pictures[part], seen[part], longest)
        for part, (_, longest) in parts
    ]
    return torch.cat(out)[at.argsort()]


def titles_of(batch: DescriptorBatch) -> DescriptorBatch:
    """The batch with the first text of each product alone."""
    if batch.text_row is None or batch.text_places < 2:
        return batch
    return _with_texts(batch, batch.text_row == 0)


def without_titles(batch: DescriptorBatch) -> DescriptorBatch:
    """The batch without the first text of each product."""
    if batch.text_row is None or batch.text_places < 2:
        return dataclasses.replace(batch, text=None)
    return _with_texts(batch, batch.text_row > 0)


def _with_texts(batch: DescriptorBatch, keep: Tensor) -> DescriptorBatch:
    """The batch with those of its n texts where `keep` (n,) is true, cut to the longest."""
    assert batch.text is not None and batch.text_lengths is not None and batch.text_bag is not None
    assert batch.text_row is not None
    text, lengths = batch.text[keep], batch.text_lengths[keep]
    if batch.text.dim() > 2 or not batch.text.is_floating_point():  # else without a token axis
        text = text[:, : max(int(lengths.max()), 1)] if len(lengths) else text
    return dataclasses.replace(
        batch,
        text=text,
        text_lengths=lengths,
        text_bag=batch.text_bag[keep],
        text_row=batch.text_row[keep],
        text_groups=(),
    )
