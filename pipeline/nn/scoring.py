"""Classifier scores <w_l, x^{2,l}> of many datapoints and many labels, without making the adapted rows of all at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from pipeline.nn.attention import ConCat
from pipeline.nn.mufin import Bag, Mufin

AT_ONCE = 2**22     # numbers that ConCat's hidden layer may have at once: more is slower on a CPU


class LabelSide:
    """What the score needs of U labels, computed once a label. Every field is a tensor, its first axis the labels."""

    w: Tensor

    def __getitem__(self, index) -> LabelSide:
        """The labels `index`, (K,) or a datapoint's own (B, K)."""
        return type(self)(*(t[index] for t in self.tensors()))

    def tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self)]

    @property
    def shared(self) -> bool:
        """Whether all datapoints are scored against the same U labels; else each against its own K."""
        return self.w.dim() == 2


@dataclass(frozen=True)
class PlainSide(LabelSide):
    """Without A_C the classifiers are all."""

    w: Tensor           # (U, D)

    def numbers(self, own: bool) -> int:
        """Numbers made for a pair of a datapoint and a label, `own`: where each datapoint has labels of its own."""
        return self.w.shape[1] if own else 1


@dataclass(frozen=True)
class ConCatSide(LabelSide):
    """What ConCat and the classifiers need."""

    hidden: Tensor      # (U, 2D): what z^1 adds to the hidden layer
    w: Tensor           # (U, D)

    def numbers(self, own: bool) -> int:
        return self.w.shape[1] * (6 if own else 3)


@dataclass(frozen=True)
class AttentionSide(LabelSide):
    """What A_C and the classifiers need of labels with at most m rows and H heads; Z = H m."""

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

    def numbers(self, own: bool) -> int:
        width = self.gram.shape[1]
        return 4 * width * width * (self.w.shape[1] // 8) if own else width


def label_side(model: Mufin, z: Bag, w: Tensor) -> LabelSide:
    """The label side of U bags (U, m, D) and their classifiers (U, D)."""
    if model.cross_attention is None:
        return PlainSide(w)
    if isinstance(model.cross_attention, ConCat):
        return ConCatSide(model.cross_attention.of_labels(model.vector(z)), w)
    block, gain, shift = model.cross_attention, model.cross_attention.norm.weight, model.cross_attention.norm.bias
    keys, values = block.answers(z.rows)
    values = values.flatten(1, 2)
    values = values - values.mean(-1, keepdim=True)
    scaled = values * gain
    return AttentionSide(keys, z.mask, values, scaled, values @ values.mT, scaled @ scaled.mT,
                         torch.einsum("uzd,ud->uz", scaled, w), scaled @ shift, w * gain, w @ shift)


def cross_scores(model: Mufin, x: Bag, labels: LabelSide) -> Tensor:
    """<w_l, x^{2,l}> for B datapoints, (B, U): of all U labels of the side, or of each datapoint's own K (sides (B, K, ...)).

    Equal to `Mufin.adapted` with every kind of A_C (a test shows it).
    """
    if isinstance(labels, AttentionSide):
        return _attention_scores(model, x, labels)
    if isinstance(labels, ConCatSide):
        return _concat_scores(model, x, labels)
    return torch.einsum(f"bd,{'u' if labels.shared else 'bu'}d->bu", model.vector(x), labels.w)


def _concat_scores(model: Mufin, x: Bag, labels: ConCatSide) -> Tensor:
    """The hidden layer is a part of the datapoint plus one of the label: (B, U, 2D) from (B, 2D) and (U, 2D), for as many
    datapoints at once as `AT_ONCE` allows. Where gradients are wanted, chunks are made again in the backward pass."""
    of_x, present = model.cross_attention.of_datapoints(model.vector(x)), x.mask.any(-1)

    def scores(of_x: Tensor, present: Tensor, hidden: Tensor, w: Tensor) -> Tensor:
        joined = normalize(model.cross_attention.joined(of_x.unsqueeze(1), hidden), dim=-1)
        return torch.einsum(f"bud,{'u' if w.dim() == 2 else 'bu'}d->bu", joined, w) * present.unsqueeze(1)

    size = max(1, AT_ONCE // max(of_x.shape[1] * labels.w.shape[-2], 1))
    if len(of_x) <= size:
        return scores(of_x, present, labels.hidden, labels.w)
    out = []
    for start in range(0, len(of_x), size):
        at = slice(start, start + size)
        side = labels if labels.shared else labels[at]
        out.append(checkpoint(scores, of_x[at], present[at], side.hidden, side.w, use_reentrant=False))
    return torch.cat(out)


def _attention_scores(model: Mufin, x: Bag, labels: AttentionSide) -> Tensor:
    """The scores with A_C, without its rows.

    With y = X + sum_z p_z V_z the rows before A_C's LayerNorm, all that the score needs are inner products of the
    centred X, V and w: the variance, <w, LN(y)> and the norm of the rows' sum are sums of them over p. So the work is
    three matrix products and a pass over (B, U, m_x, Z) instead of (B, U, m_x, D): many times less memory. Attention
    dropout falls on p, as in the block.
    """
    block, gain, shift = model.cross_attention, model.cross_attention.norm.weight, model.cross_attention.norm.bias
    u = "u" if labels.shared else "bu"
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


def _attention(block, x: Bag, labels: AttentionSide, u: str) -> Tensor:
    """Attention weights of every datapoint row on every label row, (B, U, m_x, H m_z); zeros for a label without rows."""
    scores = torch.einsum(f"bhxd,{u}hzd->buxhz", block.asks(x.rows), labels.keys)
    empty = ~(labels.mask[None] if u == "u" else labels.mask)[:, :, None, None, :]
    return block.dropout(scores.masked_fill(empty, -1e9).softmax(-1).masked_fill(empty, 0.0)).flatten(-2)
