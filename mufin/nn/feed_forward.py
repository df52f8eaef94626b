"""What replaces A_S in two variants: a feed-forward layer (MUFIN-no A_S), or nothing (early fusion)."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """F(X) = LayerNorm(W X + b + X), each row by itself (MUFIN-no A_S; App. F, Table 4).

    The paper says no more than "a simple feed-forward layer". Residual and LayerNorm are A_S's, and W starts as the
    identity like A_S's matrices. So this computes for every row what A_S computes for a bag of one row, and the variant
    lacks attention alone.
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.layer, self.dropout, self.norm = (
            nn.Linear(dim, dim),
            nn.Dropout(dropout),
            nn.LayerNorm(dim),
        )
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D), padding 0."""
        return self.norm(self.dropout(self.layer(rows)) + rows).masked_fill(
            ~mask.unsqueeze(-1), 0.0
        )


class NoSelfAttention(nn.Module):
    """Rows stay as the encoders return them."""

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D), padding 0."""
        return rows.masked_fill(~mask.unsqueeze(-1), 0.0)
