"""A_C, which adapts a datapoint to each label (MUFIN Fig. 2c), and its scores for many labels at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mufin.nn.attention import AttentionBlock
from mufin.nn.bags import Bag, Pooling
from mufin.nn.label_side import LabelSide


@dataclass(frozen=True)
class AttentionSide(LabelSide):
    """Of labels with at most m rows, H heads; Z = H m."""

    keys: Tensor  # (U, H, m, D / H)
    mask: Tensor  # (U, m) bool
    values: Tensor  # (U, Z, D): V.O, centred
    scaled: Tensor  # (U, Z, D): the same times the LayerNorm's gain
    gram: Tensor  # (U, Z, Z): <values, values>
    scaled_gram: Tensor  # (U, Z, Z): <scaled, scaled>
    onto_w: Tensor  # (U, Z): <scaled, w>
    onto_shift: Tensor  # (U, Z): <scaled, shift of the LayerNorm>
    w: Tensor  # (U, D): the classifier times the gain
    w_shift: Tensor  # (U,): <w, shift>

    def numbers(self, own: bool) -> int:
        width = self.gram.shape[1]
        return 4 * width * width * (self.w.shape[1] // 8) if own else width


class CrossAttention(AttentionBlock):
    """A_C: the rows of a datapoint attend to the rows of a label (Fig. 2c)."""

    def adapted(self, x: Bag, z: Bag, pooling: Pooling) -> Tensor:
        """x^{2,l} = N(sum of the rows of A_C(X^1, Z^1)) of n aligned pairs of bags, (n, D); zero for an empty bag."""
        return pooling(Bag(self.attend(x.rows, z.rows, x.mask, z.mask), x.modality))

    def label_side(self, z: Bag, w: Tensor, pooling: Pooling) -> AttentionSide:
        """Of U bags (U, m, D) and their classifiers (U, D)."""
        gain, shift = self.norm.weight, self.norm.bias
        keys, values = self.keys_and_values(z.rows)
        values = values.flatten(1, 2)
        values = values - values.mean(-1, keepdim=True)
        scaled = values * gain
        return AttentionSide(
            keys=keys,
            mask=z.mask,
            values=values,
            scaled=scaled,
            gram=values @ values.mT,
            scaled_gram=scaled @ scaled.mT,
            onto_w=torch.einsum("uzd,ud->uz", scaled, w),
            onto_shift=scaled @ shift,
            w=w * gain,
            w_shift=w @ shift,
        )

    def scores(self, x: Bag, labels: LabelSide, pooling: Pooling) -> Tensor:
        """<w_l, x^{2,l}> of B datapoints, (B, U), or (B, K) for labels of their own: equal to `adapted`, without its rows.

        Let y_x = x + sum_z p_xz V_z be the rows before the LayerNorm. With the centred x, V and w, the score needs three
        things, each a sum of inner products over p: the variance of y_x, <w, LN(y_x)>, and the norm of sum_x k_x LN(y_x),
        where k_x is the row's weight in the pooled sum. So the work is three matrix products and a pass over
        (B, U, m_x, Z) instead of (B, U, m_x, D): many times less memory. Dropout falls on p, as in `attend`.
        """
        assert isinstance(labels, AttentionSide)
        gain, shift = self.norm.weight, self.norm.bias
        u = "u" if labels.shared else "bu"
        p = self._attention(x, labels, u)  # (B, U, mx, Z)
        xs = x.rows + self.out.bias
        xs = xs - xs.mean(-1, keepdim=True)
        xg = xs * gain
        # D sigma^2 = |y|^2 of the centred y, (B, U, mx): |x|^2 + 2 <x, sum p V> + |sum p V|^2
        inner = torch.einsum(f"buxz,{u}zy->buxy", p, labels.gram)
        cross = torch.einsum(f"bxd,{u}zd->buxz", xs, labels.values)
        plain = (xs * xs).sum(-1)[:, None] + (p * (2 * cross + inner)).sum(-1)
        sigma = (plain.clamp_min(0) / x.rows.shape[-1] + self.norm.eps).sqrt()
        weight = pooling.weights(x.modality)[:, None] / sigma  # k_x / sigma_x, (B, U, mx)
        total = pooling.weights(x.modality).sum(-1)[:, None]  # (B, 1)
        onto_w = torch.einsum(f"bxd,{u}d->bux", xs, labels.w) + torch.einsum(
            f"buxz,{u}z->bux", p, labels.onto_w
        )
        onto_shift = (xg @ shift)[:, None] + torch.einsum(f"buxz,{u}z->bux", p, labels.onto_shift)
        # |sum_x k_x LN(y_x)|^2: the weights go into x and p first, so that one quadratic form of the sum is left.
        # Products of two (B, U, ...) tensors go element by element: a batch of 3 x 3 matrix products is many times slower.
        q = (weight.unsqueeze(-1) * p).sum(2)  # (B, U, Z)
        cross = (weight.unsqueeze(-1) * torch.einsum(f"bxd,{u}zd->buxz", xg, labels.scaled)).sum(2)
        squared = (torch.einsum("bux,bxy->buy", weight, xg @ xg.mT) * weight).sum(-1)
        squared = squared + (
            q * (2 * cross + torch.einsum(f"buz,{u}zy->buy", q, labels.scaled_gram))
        ).sum(-1)
        squared = (
            squared
            + 2 * total * (weight * onto_shift).sum(-1)
            + total.square() * shift.square().sum()
        )
        return ((weight * onto_w).sum(-1) + total * labels.w_shift) * squared.clamp_min(
            1e-12
        ).rsqrt()

    def pair_weights(self, x: Bag, z: Bag) -> Tensor:
        """Attention weights (n, H, m_x, m_z) of n aligned pairs of bags."""
        return self.weights(self.queries(x.rows), self.keys_and_values(z.rows)[0], z.mask)

    def _attention(self, x: Bag, labels: AttentionSide, u: str) -> Tensor:
        """Weights of every datapoint row on every label row, (B, U, m_x, H m_z); zeros for a label without rows."""
        scores = torch.einsum(f"bhxd,{u}hzd->buxhz", self.queries(x.rows), labels.keys)
        empty = ~(labels.mask[None] if u == "u" else labels.mask)[:, :, None, None, :]
        return self.dropout(
            scores.masked_fill(empty, -1e9).softmax(-1).masked_fill(empty, 0.0)
        ).flatten(-2)
