"""A_C, which adapts a datapoint to each label (MUFIN Fig. 2c), and its scores for many labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mufin.nn.attention import AttentionBlock
from mufin.nn.bags import Bag, Pooling
from mufin.nn.label_side import LabelSide


@dataclass(frozen=True)
class AttentionSide(LabelSide):
    """What the scores need of U labels with at most m rows each, for H heads; Z = H m.

    `w` (U, D) is the classifier times the gain of the LayerNorm. V are the values with O applied,
    centred (their mean over D is subtracted), one per head and row.
    """

    keys: Tensor  # (U, H, m, D / H)
    mask: Tensor  # (U, m) bool
    values: Tensor  # (U, Z, D): V
    scaled: Tensor  # (U, Z, D): V times the gain of the LayerNorm
    gram: Tensor  # (U, Z, Z): inner products of V
    scaled_gram: Tensor  # (U, Z, Z): inner products of `scaled`
    onto_w: Tensor  # (U, Z): <scaled, classifier>
    onto_shift: Tensor  # (U, Z): <scaled, shift of the LayerNorm>
    w_shift: Tensor  # (U,): <classifier, shift of the LayerNorm>

    def numbers(self, own: bool) -> int:
        width = self.gram.shape[1]
        # `own` copies all fields for each datapoint; this is a rough estimate of their size.
        return 4 * width * width * (self.w.shape[1] // 8) if own else width


class CrossAttention(AttentionBlock):
    """A_C: the rows of a datapoint attend to the rows of a label (MUFIN Fig. 2c).

    A datapoint adapted to label l is x^{2,l} = N(sum over its rows of A_C(X^1, Z^1_l)).
    """

    def adapted(self, x: Bag, z: Bag, pooling: Pooling) -> Tensor:
        """x^{2,l} of n aligned pairs of bags, (n, D), unit norm; zero for an empty x."""
        return pooling(Bag(self.attend(x.rows, z.rows, x.mask, z.mask), x.modality))

    def label_side(self, z: Bag, w: Tensor, pooling: Pooling) -> AttentionSide:
        """The side of U labels with bags `z` (U, m, D) and classifiers `w` (U, D)."""
        gain, shift = self.norm.weight, self.norm.bias
        keys, values = self.keys_and_values(z.rows)
        values = values.flatten(1, 2)  # (U, H, m, D) -> (U, Z, D)
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
        """<w_l, x^{2,l}> of B datapoints: (B, U), or (B, K) where each has its own labels.

        The result equals that of `adapted`, without its (B, U, m_x, D) rows. Let row i of a
        datapoint be y_i = x_i + sum_z p_iz V_z before the LayerNorm, with p the attention weights
        and x, V centred, and let k_i be the weight of row i in the pooled sum. Then

            LN(y_i) = gain y_i / sigma_i + shift,   D sigma_i^2 = |y_i|^2,
            score = <w, sum_i k_i LN(y_i)> / |sum_i k_i LN(y_i)|.

        Each factor expands into inner products of x, V, w and shift, weighted by p. Those among
        labels are in the label side, so the work is a few matrix products and passes over
        (B, U, m_x, Z). Dropout falls on p, as in `attend`.
        """
        assert isinstance(labels, AttentionSide)
        u = "u" if labels.shared else "bu"  # the axes of labels in einsum
        p = self._attention(x, labels, u)  # (B, U, mx, Z)
        xs = x.rows + self.out.bias  # the bias of O, which V does not have
        xs = xs - xs.mean(-1, keepdim=True)  # (B, mx, D), centred like V
        xg = xs * self.norm.weight
        sigma = self._deviation(xs, p, labels, u)
        weight = pooling.weights(x.modality)[:, None] / sigma  # k_i / sigma_i, (B, U, mx)
        total = pooling.weights(x.modality).sum(-1)[:, None]  # sum of k_i, (B, 1)
        # <w gain, y_i>, (B, U, mx)
        of_x = torch.einsum(f"bxd,{u}d->bux", xs, labels.w)
        onto_w = of_x + torch.einsum(f"buxz,{u}z->bux", p, labels.onto_w)
        squared = self._squared_norm(xg, p, weight, total, labels, u)
        onto_sum = (weight * onto_w).sum(-1) + total * labels.w_shift
        return onto_sum * squared.clamp_min(1e-12).rsqrt()

    def _deviation(self, xs: Tensor, p: Tensor, labels: AttentionSide, u: str) -> Tensor:
        """sigma_i of each row in the LayerNorm, (B, U, mx)."""
        # |y|^2 = |x|^2 + 2 <x, sum p V> + |sum p V|^2, as y is centred
        inner = torch.einsum(f"buxz,{u}zy->buxy", p, labels.gram)
        cross = torch.einsum(f"bxd,{u}zd->buxz", xs, labels.values)
        squared = (xs * xs).sum(-1)[:, None] + (p * (2 * cross + inner)).sum(-1)
        # Rounding can make the sum of nearly equal terms negative, so it is clamped.
        return (squared.clamp_min(0) / xs.shape[-1] + self.norm.eps).sqrt()

    def _squared_norm(
        self, xg: Tensor, p: Tensor, weight: Tensor, total: Tensor, labels: AttentionSide, u: str
    ) -> Tensor:
        """|sum_i k_i LN(y_i)|^2, (B, U).

        With s = sum_i k_i / sigma_i gain y_i and K = sum_i k_i it is |s + K shift|^2.
        """
        shift = self.norm.bias
        # <gain y_i, shift>, (B, U, mx)
        of_x = (xg @ shift)[:, None]
        onto_shift = of_x + torch.einsum(f"buxz,{u}z->bux", p, labels.onto_shift)
        # s = x part + sum_z q_z V_z gain: the sum over rows comes first, so that one quadratic form
        # of q remains instead of one per row.
        q = (weight.unsqueeze(-1) * p).sum(2)  # (B, U, Z)
        # Products of two (B, U, ...) tensors go element by element: a batch of matrix products as
        # small as 3 x 3 is many times slower.
        cross = (weight.unsqueeze(-1) * torch.einsum(f"bxd,{u}zd->buxz", xg, labels.scaled)).sum(2)
        squared = (torch.einsum("bux,bxy->buy", weight, xg @ xg.mT) * weight).sum(-1)
        twice = 2 * cross
        inner = torch.einsum(f"buz,{u}zy->buy", q, labels.scaled_gram)
        squared = squared + (q * (twice + inner)).sum(-1)  # |s|^2
        with_shift = 2 * total * (weight * onto_shift).sum(-1)
        return squared + with_shift + total.square() * shift.square().sum()

    def pair_weights(self, x: Bag, z: Bag) -> Tensor:
        """Attention weights (n, H, m_x, m_z) of n aligned pairs of bags."""
        return self.weights(self.queries(x.rows), self.keys_and_values(z.rows)[0], z.mask)

    def _attention(self, x: Bag, labels: AttentionSide, u: str) -> Tensor:
        """Weights of each datapoint row on each label row, (B, U, mx, Z); 0 for empty labels."""
        scores = torch.einsum(f"bhxd,{u}hzd->buxhz", self.queries(x.rows), labels.keys)
        mask = labels.mask[None] if u == "u" else labels.mask
        padding = ~mask[:, :, None, None, :]
        weights = scores.masked_fill(padding, -1e9).softmax(-1).masked_fill(padding, 0.0)
        return self.dropout(weights).flatten(-2)
