"""MUFIN-no A_S: a feed-forward layer in the place of A_S (App. F, Table 4)."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """F(X) = LayerNorm(W X + b + X), row by row: the variant MUFIN-no A_S (App. F, Table 4).

    The paper only says "a simple feed-forward layer". Residual and LayerNorm are those of A_S, and
    W starts as the identity, as the matrices of A_S do. For every row it computes what A_S computes
    for a bag of one row, so the variant differs by the attention alone.
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D); padding is 0."""
        out = self.norm(self.dropout(self.layer(rows)) + rows)
        return out.masked_fill(~mask.unsqueeze(-1), 0.0)
