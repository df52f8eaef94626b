"""The attention block A(X, Z) (MUFIN Fig. 2d), and what stands in the place of A_S and A_C in Table 4's variants."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


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


class FeedForward(nn.Module):
    """F(X) = LayerNorm(W X + b + X), each row by itself: A_S's place in MUFIN-no A_S (App. F, Table 4).

    The paper says no more than "a simple feed-forward layer". Residual and LayerNorm are A_S's, and so is the start (W
    identity): what A_S makes of a bag with one row, this makes of every row, so that the variant lacks attention alone.
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.layer, self.dropout, self.norm = nn.Linear(dim, dim), nn.Dropout(dropout), nn.LayerNorm(dim)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(..., m, D) and mask (..., m) bool -> (..., m, D), padding 0."""
        return self.norm(self.dropout(self.layer(x)) + x).masked_fill(~mask.unsqueeze(-1), 0.0)


class ConCat(nn.Module):
    """F([x^1; z^1_l]), two feed-forward layers 2D -> 2D -> D: A_C's place in MUFIN-ConCat (App. F, Table 4).

    The paper leaves open what lies between the layers (here ReLU, then dropout) and the start. Like A_C it starts from
    the identity: the 2D hidden units are ReLU(x) and ReLU(-x), whose difference is x, so that x^{2,l} begins as x^1.
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.hidden, self.out, self.dropout = nn.Linear(2 * dim, 2 * dim), nn.Linear(2 * dim, dim), nn.Dropout(dropout)
        both, none = torch.cat([torch.eye(dim), -torch.eye(dim)]), torch.zeros(2 * dim, dim)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.cat([both, none], 1))
            self.out.weight.copy_(both.T)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x^1 (..., D) and z^1 (..., D) -> (..., D), not normalised."""
        return self.joined(self.of_datapoints(x), self.of_labels(z))

    def of_datapoints(self, x: Tensor) -> Tensor:
        """What x^1 (..., D) adds to the hidden layer, (..., 2D), with its bias."""
        return linear(x, self.hidden.weight[:, :x.shape[-1]], self.hidden.bias)

    def of_labels(self, z: Tensor) -> Tensor:
        """What z^1 (..., D) adds to the hidden layer, (..., 2D)."""
        return linear(z, self.hidden.weight[:, z.shape[-1]:])

    def joined(self, of_x: Tensor, of_z: Tensor) -> Tensor:
        """The two parts of the hidden layer, which broadcast, -> (..., D)."""
        return self.out(self.dropout(torch.relu(of_x + of_z)))


def self_attention(kind: str, dim: int, heads: int, dropout: float) -> AttentionBlock | FeedForward | None:
    """A_S (`attention`) or what stands in its place: `feedforward`, or `none`, with which rows pass as they are."""
    if kind == "none":
        return None
    return FeedForward(dim, dropout) if kind == "feedforward" else AttentionBlock(dim, heads, dropout)


def cross_attention(kind: str, dim: int, heads: int, dropout: float) -> AttentionBlock | ConCat | None:
    """A_C (`attention`) or what stands in its place: `concat`, or `none`, with which x^{2,l} = x^1."""
    if kind == "none":
        return None
    return ConCat(dim, dropout) if kind == "concat" else AttentionBlock(dim, heads, dropout)
