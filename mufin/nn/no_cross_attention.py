"""MUFIN-no A_C: the variant in which x^{2,l} is x^1 for every label (App. F, Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mufin.nn.bags import Bag, Pooling
from mufin.nn.label_side import LabelSide


@dataclass(frozen=True)
class PlainSide(LabelSide):
    """The classifiers w (U, D) only."""

    def numbers(self, own: bool) -> int:
        return self.w.shape[1] if own else 1


class NoCrossAttention(nn.Module):
    """Scores <w_l, x^1>, with the three methods of A_C."""

    def adapted(self, x: Bag, z: Bag, pooling: Pooling) -> Tensor:
        """x^{2,l} of n aligned pairs of bags, (n, D): x^1."""
        return pooling(x)

    def label_side(self, z: Bag, w: Tensor, pooling: Pooling) -> PlainSide:
        """The side of U labels with bags `z` (U, m, D), not used, and classifiers `w` (U, D)."""
        return PlainSide(w)

    def scores(self, x: Bag, labels: LabelSide, pooling: Pooling) -> Tensor:
        """<w_l, x^1> of B datapoints: (B, U), or (B, K) where each has its own labels."""
        u = "u" if labels.shared else "bu"
        return torch.einsum(f"bd,{u}d->bu", pooling(x), labels.w)
