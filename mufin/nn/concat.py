"""MUFIN-ConCat: two feed-forward layers on [x^1; z^1_l] replace A_C (App. F, Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from torch.utils.checkpoint import checkpoint

from mufin.nn.bags import Bag, Pooling
from mufin.nn.label_side import LabelSide

AT_ONCE = 2**22  # numbers of the hidden layer in memory at once; more is slower on a CPU


@dataclass(frozen=True)
class ConCatSide(LabelSide):
    """What the scores need of U labels: their classifiers and their part of the hidden layer."""

    hidden: Tensor  # (U, 2D): what z^1 adds to the hidden layer

    def numbers(self, own: bool) -> int:
        # 3 D: the hidden layer and x^{2,l}. 3 D more: a copy of the side for each datapoint.
        return self.w.shape[1] * (6 if own else 3)


class ConCat(nn.Module):
    """x^{2,l} = N(F([x^1; z^1_l])): feed-forward layers 2D -> 2D -> D (App. F, Table 4).

    The paper says neither what lies between the layers nor how they start. Here it is ReLU, then
    dropout, and the start is the identity, as in A_C: the 2D hidden units are ReLU(x) and ReLU(-x),
    whose difference is x, so x^{2,l} starts as x^1.
    """

    def __init__(self, dim: int, dropout: float = 0.0):
        super().__init__()
        self.hidden, self.out = nn.Linear(2 * dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)
        both = torch.cat([torch.eye(dim), -torch.eye(dim)])  # (2D, D)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.cat([both, torch.zeros(2 * dim, dim)], 1))
            self.out.weight.copy_(both.T)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x^1 (..., D) and z^1 (..., D) -> (..., D), not normalised."""
        return self._output(self._hidden_of_datapoints(x), self._hidden_of_labels(z))

    def adapted(self, x: Bag, z: Bag, pooling: Pooling) -> Tensor:
        """x^{2,l} of n aligned pairs of bags, (n, D), unit norm; zero for an empty x."""
        return normalize(self(pooling(x), pooling(z)), dim=-1) * x.mask.any(-1, keepdim=True)

    def label_side(self, z: Bag, w: Tensor, pooling: Pooling) -> ConCatSide:
        """The side of U labels with bags `z` (U, m, D) and classifiers `w` (U, D)."""
        return ConCatSide(w, self._hidden_of_labels(pooling(z)))

    def scores(self, x: Bag, labels: LabelSide, pooling: Pooling) -> Tensor:
        """<w_l, x^{2,l}> of B datapoints: (B, U), or (B, K) where each has its own labels.

        The hidden layer of all pairs is (B, U, 2D), so it is made for as many datapoints at a time
        as `AT_ONCE` allows. The backward pass computes it again instead of keeping it.
        """
        assert isinstance(labels, ConCatSide)
        of_x, present = self._hidden_of_datapoints(pooling(x)), x.mask.any(-1)
        size = max(1, AT_ONCE // max(of_x.shape[1] * labels.w.shape[-2], 1))
        if len(of_x) <= size:
            return self._scores(of_x, present, labels.hidden, labels.w)
        out = []
        for start in range(0, len(of_x), size):
            at = slice(start, start + size)
            hidden = labels.hidden if labels.shared else labels.hidden[at]
            w = labels.w if labels.shared else labels.w[at]
            chunk = (of_x[at], present[at], hidden, w)
            out.append(checkpoint(self._scores, *chunk, use_reentrant=False))
        return torch.cat(out)

    def _scores(self, of_x: Tensor, present: Tensor, hidden: Tensor, w: Tensor) -> Tensor:
        u = "u" if w.dim() == 2 else "bu"
        joined = normalize(self._output(of_x.unsqueeze(1), hidden), dim=-1)  # (B, U, D)
        return torch.einsum(f"bud,{u}d->bu", joined, w) * present.unsqueeze(1)

    def _hidden_of_datapoints(self, x: Tensor) -> Tensor:
        """What x^1 (..., D) adds to the hidden layer, (..., 2D), with its bias."""
        return linear(x, self.hidden.weight[:, : x.shape[-1]], self.hidden.bias)

    def _hidden_of_labels(self, z: Tensor) -> Tensor:
        """What z^1 (..., D) adds to the hidden layer, (..., 2D)."""
        return linear(z, self.hidden.weight[:, z.shape[-1] :])

    def _output(self, of_x: Tensor, of_z: Tensor) -> Tensor:
        """The sum of both parts of the hidden layer (they broadcast) -> (..., D)."""
        return self.out(self.dropout(torch.relu(of_x + of_z)))
