"""Scores against all labels whose matrix is never made: log-sum-exp and picked scores, in blocks.

The scores of A datapoints and L labels are A L numbers, and a softmax with its gradient holds
several times as many. Here a block of labels is scored at a time, in the forward pass and again in
the backward pass, as FlashAttention (Dao et al., NeurIPS 2022) and Cut Cross-Entropy (Wijmans et
al., ICLR 2025) do. Memory is that of one block and of the gradient of the classifiers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """P distinct pairs of a datapoint and a label, by the block that the label is in."""

    row: Tensor  # (P,) int64, the datapoint of the step
    place: Tensor  # (P,) int64, the label's place in its block
    ends: tuple[int, ...]  # the pairs of block b are [ends[b], ends[b + 1])

    @classmethod
    def of(cls, row: np.ndarray, label: np.ndarray, labels: int, block: int) -> Pairs:
        """Of pairs that are sorted by label; `labels` is L and `block` labels per block."""
        starts = np.arange(0, labels + block, block)
        ends = tuple(np.searchsorted(label, starts).tolist())
        return cls(torch.from_numpy(row), torch.from_numpy(label % block), ends)

    def to(self, device: torch.device) -> Pairs:
        row, place = (t.to(device, non_blocking=True) for t in (self.row, self.place))
        return Pairs(row, place, self.ends)

    def of_block(self, number: int) -> tuple[Tensor, Tensor]:
        """Row and place of the pairs of a block."""
        part = slice(self.ends[number], self.ends[number + 1])
        return self.row[part], self.place[part]


def log_sum_exp(
    x: Tensor,
    w: Tensor,
    temperature: float,
    block: int,
    picked: Pairs,
    left_out: Pairs,
    precision: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """log sum_l exp(<x, w_l> / temperature) over the labels that are not left out, and scores.

    `x` (A, D) and `w` (L, D) -> (A,) and the scores <x, w_l> / temperature of the pairs `picked`,
    (P,). Both have gradients. `block` labels are scored at once. With `precision` the products of
    matrices are in that dtype, such as bfloat16; sums and exponentials are in that of `x`.
    """
    outs = _LogSumExp.apply(x, w, temperature, block, picked, left_out, precision or x.dtype)
    return outs[0], outs[1]


class _LogSumExp(torch.autograd.Function):
    """The gradient of log-sum-exp is the softmax, which each block gives once the sum is known."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        temperature: float,
        block: int,
        picked: Pairs,
        left_out: Pairs,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        ctx.given = temperature, block, picked, left_out, precision
        total, parts = x.new_full((len(x),), -torch.inf), []
        for number, scores, _ in _blocks(x, w, *ctx.given):
            parts.append(scores[picked.of_block(number)])
            # In place, after the picked scores were read.
            scores[left_out.of_block(number)] = -torch.inf
            total = torch.logaddexp(total, scores.logsumexp(1))
        ctx.save_for_backward(x, w, total)
        return total, torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, total = ctx.saved_tensors
        temperature, block, picked, left_out, precision = ctx.given
        of_total, of_picked = grads
        # A row without any label has a sum of -inf; its softmax is 0 and not NaN.
        total = total.clamp_min(torch.finfo(total.dtype).min).unsqueeze(1)
        cast = x.to(precision)
        grad_x, grad_w = torch.zeros_like(x), torch.empty_like(w)
        for number, scores, part in _blocks(x, w, *ctx.given):
            scores[left_out.of_block(number)] = -torch.inf
            grad = scores.sub_(total).exp_().mul_(of_total.unsqueeze(1))  # (A, labels of the block)
            pairs = slice(picked.ends[number], picked.ends[number + 1])
            grad[picked.of_block(number)] += of_picked[pairs]
            grad = grad.div_(temperature).to(precision)
            grad_x += grad @ part
            grad_w[number * block : (number + 1) * block] = grad.T @ cast
        return grad_x, grad_w, None, None, None, None, None


def _blocks(
    x: Tensor,
    w: Tensor,
    temperature: float,
    block: int,
    picked: Pairs,
    left_out: Pairs,
    precision: torch.dtype,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields the number of each block, its scores (A, b) and its classifiers (b, D) in `precision`.

    Scores are in the dtype of `x`, and a new tensor, which may be changed.
    """
    cast = x.to(precision)
    for number, part in enumerate(w.split(block)):
        part = part.to(precision)
        yield number, (cast @ part.T).to(x.dtype) / temperature, part
