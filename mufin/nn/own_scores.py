"""Scores of one datapoint against labels of which nothing was computed before.

`CrossAttention.scores` is made for label sides that serve many datapoints. Where these do not fit
in memory, as with 300,000 labels, a question computes what it needs of its own candidates; then it
is faster to skip what only pays for many datapoints.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from mufin.nn.bags import Bag
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.mufin import Mufin


class OwnScores:
    """<w_l, x^{2,l}> of one datapoint and U labels, for a network in eval mode.

    The weights must not change afterwards.
    """

    @torch.inference_mode()
    def __init__(self, network: Mufin):
        self.network = network
        block = network.cross_attention
        self.block = block if isinstance(block, CrossAttention) else None
        if self.block is not None and self.block.heads == 1:
            # V and O are linear, so they are one map
            self.value = self.block.out.weight @ self.block.value.weight
            self.value_bias = self.block.out.weight @ self.block.value.bias

    @torch.inference_mode()
    def __call__(self, x: Bag, z: Bag, w: Tensor) -> Tensor:
        """(U,) for one bag `x` (1, m_x, D), bags `z` (U, m, D) and classifiers `w` (U, D)."""
        network, block = self.network, self.block
        if block is None:
            return network.scores(x, network.label_side(z, w))[0]
        rows, mask = x.rows[0], z.mask[:, None, None, :]
        # <q, W_k z> = <W_k^T q, z>; the bias of K adds the same to all z of a softmax
        keys = block.key.weight.unflatten(0, (block.heads, -1))  # (H, D / H, D)
        asked = block.queries(rows) @ keys  # (H, m_x, D)
        scores = (z.rows @ asked.flatten(0, 1).mT).mT.unflatten(1, (block.heads, -1))
        p = scores.masked_fill(~mask, -1e9).softmax(-1).masked_fill(~mask, 0.0)  # (U, H, m_x, m)
        attended = (p @ self._values(z.rows)).sum(1) + block.out.bias
        adapted = Bag(block.norm(attended + rows), x.modality.expand(len(w), -1))
        return (network.pooling(adapted) * w).sum(-1)

    def _values(self, rows: Tensor) -> Tensor:
        """(U, m, D) -> values with O applied (U, H, m, D), without the bias of O."""
        assert self.block is not None
        if self.block.heads == 1:
            return linear(rows, self.value, self.value_bias)[:, None]
        return self.block.keys_and_values(rows)[1]
