"""The attention block A(X, Z) (MUFIN Fig. 2d) and what A_S and A_C share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """A(X, Z) = LayerNorm(O(softmax(Q K^T / sqrt(d_head)) V) + X): X asks, Z answers (MUFIN Fig. 2d).

    Q, K, V, O are D x D with bias, identity at the start. The residual and the LayerNorm are the released code's
    (the figure is silent). O is linear, so it is applied to the answering rows, head by head, before the softmax
    weighs them: the same sum, and a label's K and V.O are computed once however many datapoints ask it.
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

    def forward(self, x: Tensor, z: Tensor, x_mask: Tensor, z_mask: Tensor) -> Tensor:
        """(..., m_x, D) asks (..., m_z, D); masks (..., m) bool, True = a descriptor. -> (..., m_x, D), padding 0."""
        keys, values = self.answers(z)
        weights = self.dropout(self.weights(self.asks(x), keys, z_mask))
        attended = torch.einsum("...hxz,...hzd->...xd", weights, values) + self.out.bias
        return self.norm(attended + x).masked_fill(~x_mask.unsqueeze(-1), 0.0)

    def asks(self, x: Tensor) -> Tensor:
        """(..., m, D) -> queries (..., H, m, D / H), scaled by 1 / sqrt(d_head)."""
        return self._split(self.query(x)) / math.sqrt(x.shape[-1] // self.heads)

    def answers(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., m, D) -> keys (..., H, m, D / H) and values with O applied, without its bias, (..., H, m, D)."""
        out = self.out.weight.unflatten(1, (self.heads, -1))                       # (D, H, D / H)
        return self._split(self.key(z)), torch.einsum("...hmk,dhk->...hmd", self._split(self.value(z)), out)

    def weights(self, queries: Tensor, keys: Tensor, z_mask: Tensor) -> Tensor:
        """Attention weights (..., H, m_x, m_z); a bag with no descriptor gets zeros, never NaN."""
        mask = z_mask[..., None, None, :]
        scores = (queries @ keys.transpose(-1, -2)).masked_fill(~mask, -1e9)
        return scores.softmax(-1).masked_fill(~mask, 0.0)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
