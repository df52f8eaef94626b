"""E_T over the titles of a batch, group by group (`mufin.corpus.title_groups`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mufin.nn.recomputed import InPieces


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
