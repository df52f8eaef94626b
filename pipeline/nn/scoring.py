"""Classifier scores <w_l, x^{2,l}> of many datapoints and many labels, without making the adapted rows."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pipeline.nn.mufin import Bag, Mufin


@dataclass(frozen=True, slots=True)
class LabelSide:
    """What A_C and the classifiers need of U labels with at most m rows and H heads; Z = H m. Computed once a label."""

    keys: Tensor        # (U, H, m, D / H)
    mask: Tensor        # (U, m) bool
    values: Tensor      # (U, Z, D): V.O, centred
    scaled: Tensor      # (U, Z, D): the same times the LayerNorm's gain
    gram: Tensor        # (U, Z, Z): <values, values>
    scaled_gram: Tensor  # (U, Z, Z): <scaled, scaled>
    onto_w: Tensor      # (U, Z): <scaled, w>
    onto_shift: Tensor  # (U, Z): <scaled, shift of the LayerNorm>
    w: Tensor           # (U, D): the classifier times the gain
    w_shift: Tensor     # (U,): <w, shift>

    def __getitem__(self, index) -> LabelSide:
        """The labels `index`, (K,) or a datapoint's own (B, K)."""
        return LabelSide(*(t[index] for t in self.tensors()))

    def tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self)]


def label_side(model: Mufin, z: Bag, w: Tensor) -> LabelSide:
    """The label side of U bags (U, m, D) and their classifiers (U, D)."""
    block, gain, shift = model.cross_attention, model.cross_attention.norm.weight, model.cross_attention.norm.bias
    keys, values = block.answers(z.rows)
    values = values.flatten(1, 2)
    values = values - values.mean(-1, keepdim=True)
    scaled = values * gain
    return LabelSide(keys, z.mask, values, scaled, values @ values.mT, scaled @ scaled.mT,
                     torch.einsum("uzd,ud->uz", scaled, w), scaled @ shift, w * gain, w @ shift)


def cross_scores(model: Mufin, x: Bag, labels: LabelSide) -> Tensor:
    """<w_l, x^{2,l}> for B datapoints, (B, U): of all U labels of the side, or of each datapoint's own K (sides (B, K, ...)).

    With y = X + sum_z p_z V_z the rows before A_C's LayerNorm, all that the score needs are inner products of the
    centred X, V and w: the variance, <w, LN(y)> and the norm of the rows' sum are sums of them over p. So the work is
    three matrix products and a pass over (B, U, m_x, Z) instead of (B, U, m_x, D): equal to `Mufin.adapted` (a test
    shows it), many times less memory. Attention dropout falls on p, as in the block.
    """
    block, gain, shift = model.cross_attention, model.cross_attention.norm.weight, model.cross_attention.norm.bias
    u = "u" if labels.w.dim() == 2 else "bu"
    p = _attention(block, x, labels, u)                                   # (B, U, mx, Z)
    xs = x.rows + block.out.bias
    xs = xs - xs.mean(-1, keepdim=True)
    xg = xs * gain
    inner = torch.einsum(f"buxz,{u}zy->buxy", p, labels.gram)
    cross = torch.einsum(f"bxd,{u}zd->buxz", xs, labels.values)
    plain = (xs * xs).sum(-1)[:, None] + (p * (2 * cross + inner)).sum(-1)
    sigma = (plain.clamp_min(0) / model.dim + block.norm.eps).sqrt()
    weight = model.row_weights(x.modality)[:, None] / sigma               # k_x / sigma_x, (B, U, mx)
    total = model.row_weights(x.modality).sum(-1)[:, None]                # (B, 1)
    onto_w = torch.einsum(f"bxd,{u}d->bux", xs, labels.w) + torch.einsum(f"buxz,{u}z->bux", p, labels.onto_w)
    onto_shift = (xg @ shift)[:, None] + torch.einsum(f"buxz,{u}z->bux", p, labels.onto_shift)
    # |sum_x k_x LN(y_x)|^2: fold the weights into X and p first, so that one quadratic form of the sum is left.
    # Products of two (B, U, ...) tensors go element by element: a batch of 3 x 3 matrix products is many times slower.
    q = (weight.unsqueeze(-1) * p).sum(2)                                 # (B, U, Z)
    cross = (weight.unsqueeze(-1) * torch.einsum(f"bxd,{u}zd->buxz", xg, labels.scaled)).sum(2)
    squared = (torch.einsum("bux,bxy->buy", weight, xg @ xg.mT) * weight).sum(-1)
    squared = squared + (q * (2 * cross + torch.einsum(f"buz,{u}zy->buy", q, labels.scaled_gram))).sum(-1)
    squared = squared + 2 * total * (weight * onto_shift).sum(-1) + total.square() * shift.square().sum()
    return ((weight * onto_w).sum(-1) + total * labels.w_shift) * squared.clamp_min(1e-12).rsqrt()


def _attention(block, x: Bag, labels: LabelSide, u: str) -> Tensor:
    """Attention weights of every datapoint row on every label row, (B, U, m_x, H m_z); zeros for a label without rows."""
    scores = torch.einsum(f"bhxd,{u}hzd->buxhz", block.asks(x.rows), labels.keys)
    empty = ~(labels.mask[None] if u == "u" else labels.mask)[:, :, None, None, :]
    return block.dropout(scores.masked_fill(empty, -1e9).softmax(-1).masked_fill(empty, 0.0)).flatten(-2)
