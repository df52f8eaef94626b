"""Nothing in the place of A_S: early fusion, where a bag has one row (App. C.1)."""

from __future__ import annotations

from torch import Tensor, nn


class NoSelfAttention(nn.Module):
    """X^1 = X^0: rows stay as the encoders return them, for early fusion (App. C.1)."""

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D); padding is 0."""
        return rows.masked_fill(~mask.unsqueeze(-1), 0.0)
