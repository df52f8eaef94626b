"""The attention block A(X, Z) (MUFIN Fig. 2d), and A_S, which applies it within one bag (Fig. 2a)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """A(X, Z) = LayerNorm(O(softmax(Q K^T / sqrt(d_head)) V) + X): queries from X, keys and values from Z (Fig. 2d).

    Q, K, V and O are D x D with bias and start as the identity. The residual and the LayerNorm are the released code's:
    the figure does not show them. O is linear, so it is applied to the rows of Z, head by head, before the softmax
    weighs them. The sum is the same, and K and V.O of a label are computed once for all datapoints.
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
        """Rows (..., m_x, D) attend to (..., m_z, D); masks (..., m) bool, True = a descriptor.

        -> (..., m_x, D), padding 0.
        """
        keys, values = self.keys_and_values(z)
        weights = self.dropout(self.weights(self.queries(x), keys, z_mask))
        attended = torch.einsum("...hxz,...hzd->...xd", weights, values) + self.out.bias
        return self.norm(attended + x).masked_fill(~x_mask.unsqueeze(-1), 0.0)

    def queries(self, x: Tensor) -> Tensor:
        """(..., m, D) -> queries (..., H, m, D / H), scaled by 1 / sqrt(d_head)."""
        return self._split(self.query(x)) / math.sqrt(x.shape[-1] // self.heads)

    def keys_and_values(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., m, D) -> keys (..., H, m, D / H), and values with O applied, without its bias, (..., H, m, D)."""
        out = self.out.weight.unflatten(1, (self.heads, -1))  # (D, H, D / H)
        keys = self._split(
            self.key(z)
        )  # before the values: the order of operations decides the last bit of gradients
        return keys, torch.einsum("...hmk,dhk->...hmd", self._split(self.value(z)), out)

    def weights(self, queries: Tensor, keys: Tensor, z_mask: Tensor) -> Tensor:
        """Attention weights (..., H, m_x, m_z); a bag without a descriptor gets zeros, never NaN."""
        mask = z_mask[..., None, None, :]
        scores = (queries @ keys.transpose(-1, -2)).masked_fill(~mask, -1e9)
        return scores.softmax(-1).masked_fill(~mask, 0.0)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


class SelfAttention(AttentionBlock):
    """A_S: the rows of a bag attend to one another (Fig. 2a)."""

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D), padding 0."""
        return self.attend(rows, rows, mask, mask)
