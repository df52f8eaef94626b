"""Encoders in pieces whose inner values are computed again in the backward pass.

What a step keeps for its backward pass is then that of one piece, and the descriptors, whatever the
number of products; the forward pass of the encoders runs twice (Chen et al. 2016, sublinear memory
cost).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PIECE = 256  # titles or pictures


class InPieces:
    """Calls an encoder on `PIECE` rows after another: inputs (n, ...) -> descriptors (n, width).

    The results and gradients are those of one call, except for random numbers: dropout draws them
    piece by piece. An encoder that trains with batch statistics gets all rows at once, as these
    would be others in a piece.
    """

    def __init__(self, encoder: nn.Module):
        self.encoder = encoder

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        given = [x for x in inputs if x is not None]
        whole = len(given[0]) <= PIECE or not torch.is_grad_enabled() or _of_batches(self.encoder)
        if whole:
            return self.encoder(*inputs)
        pieces = zip(*(x.split(PIECE) for x in given))
        out = [checkpoint(self.encoder, *piece, use_reentrant=False) for piece in pieces]
        return torch.cat(cast(list[Tensor], out))


def _of_batches(encoder: nn.Module) -> bool:
    """Whether it normalises by the statistics of a batch."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return any(norm.training for norm in norms)
