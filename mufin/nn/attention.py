"""The attention block A(X, Z) (MUFIN Fig. 2d), and A_S, which applies it within a bag (Fig. 2a)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """A(X, Z) = LayerNorm(O(softmax(Q K^T / sqrt(d_head)) V) + X)  (MUFIN Fig. 2d).

    Queries Q come from X, keys K and values V from Z. The four linear maps are D x D with bias and
    start as the identity. Residual and LayerNorm are in the released code but not in the figure.

    O is linear, so it is applied to the values before the softmax weighs them. The result is the
    same, and the values of a label with O applied are computed once for all datapoints.
    """

    def __init__(self, dim: int, heads: int = 1, dropout: float = 0.0):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} dimensions")
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm = nn.LayerNorm(dim)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def attend(self, x: Tensor, z: Tensor, x_mask: Tensor, z_mask: Tensor) -> Tensor:
        """A(X, Z) of rows (..., m_x, D) and (..., m_z, D) -> (..., m_x, D); padding is 0.

        Masks are (..., m) bool, true for descriptors.
        """
        keys, values = self.keys_and_values(z)
        weights = self.dropout(self.weights(self.queries(x), keys, z_mask))  # (..., H, m_x, m_z)
        # The sum over heads h is O's: its columns of each head are in the values already.
        attended = torch.einsum("...hxz,...hzd->...xd", weights, values) + self.out.bias
        return self.norm(attended + x).masked_fill(~x_mask.unsqueeze(-1), 0.0)

    def queries(self, x: Tensor) -> Tensor:
        """(..., m, D) -> queries (..., H, m, D / H), divided by sqrt(d_head)."""
        return self._split(self.query(x)) / math.sqrt(x.shape[-1] // self.heads)

    def keys_and_values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., m, D) -> keys (..., H, m, D / H) and values with O applied (..., H, m, D).

        The bias of O is not in the values; it is added once to their weighted sum.
        """
        out = self.out.weight.unflatten(1, (self.heads, -1))  # (D, H, D / H)
        # Keys before values: autograd sums gradients in this order, which decides their last bit.
        keys = self._split(self.key(z))
        return keys, torch.einsum("...hmk,dhk->...hmd", self._split(self.value(z)), out)

    def weights(self, queries: Tensor, keys: Tensor, z_mask: Tensor) -> Tensor:
        """Attention weights (..., H, m_x, m_z); zeros for a bag without descriptors, never NaN."""
        mask = z_mask[..., None, None, :]  # the same for all heads and rows of X
        # -1e9 and not -inf: the softmax of a row of -inf would be NaN.
        scores = (queries @ keys.transpose(-1, -2)).masked_fill(~mask, -1e9)
        return scores.softmax(-1).masked_fill(~mask, 0.0)

    def _split(self, x: Tensor) -> Tensor:
        """(..., m, D) -> (..., H, m, D / H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


class SelfAttention(AttentionBlock):
    """A_S: each row of a bag attends to all rows of the bag (MUFIN Fig. 2a)."""

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D); padding is 0."""
        return self.attend(rows, rows, mask, mask)
