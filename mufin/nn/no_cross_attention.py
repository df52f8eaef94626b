"""MUFIN-no A_C: x^{2,l} = x^1, whatever the label (App. F, Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mufin.nn.bags import Bag, Pooling
from mufin.nn.label_side import LabelSide


@dataclass(frozen=True)
class PlainSide(LabelSide):
    """The classifiers."""

    w: Tensor  # (U, D)

    def numbers(self, own: bool) -> int:
        return self.w.shape[1] if own else 1


class NoCrossAttention(nn.Module):
    """Scores <w_l, x^1>."""

    def adapted(self, x: Bag, z: Bag, pooling: Pooling) -> Tensor:
        """x^{2,l} of n aligned pairs of bags, (n, D): x^1."""
        return pooling(x)

    def label_side(self, z: Bag, w: Tensor, pooling: Pooling) -> PlainSide:
        """Of U bags (U, m, D) and their classifiers (U, D)."""
        return PlainSide(w)

    def scores(self, x: Bag, labels: LabelSide, pooling: Pooling) -> Tensor:
        """<w_l, x^1> of B datapoints, (B, U), or (B, K) for labels of their own."""
        return torch.einsum(f"bd,{'u' if labels.shared else 'bu'}d->bu", pooling(x), labels.w)
