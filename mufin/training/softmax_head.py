"""Scores against all labels whose matrix is never made: log-sum-exp and picked scores, in blocks.

The scores of A datapoints and L labels are A L numbers, and a softmax with its gradient holds
several times as many. Here a block of labels is scored at a time, in the forward pass and again in
the backward pass, as FlashAttention (Dao et al., NeurIPS 2022) and Cut Cross-Entropy (Wijmans et
al., ICLR 2025) do. Memory is that of one block and of the gradient of the classifiers.
"""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class Scoring:
    """How blocks of labels are scored, and which pairs count."""

    temperature: float
    block: int  # labels that are scored at once
    picked: Pairs
    left_out: Pairs
    precision: torch.dtype  # of products of matrices; sums are in that of the datapoints

    def scores(self, x: Tensor, part: Tensor) -> Tensor:
        """<x, w_l> / temperature of the classifiers (b, D) of a block, (A, b), a new tensor."""
        return (x.to(self.precision) @ part.to(self.precision).T).to(x.dtype) / self.temperature

    def sums(self, x: Tensor, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """The results of `log_sum_exp`; `parts` are the classifiers of the blocks, in order."""
        total, picked = x.new_full((len(x),), -torch.inf), []
        for number, part in enumerate(parts):
            scores = self.scores(x, part)
            picked.append(scores[self.picked.of_block(number)])
            # In place, after the picked scores were read.
            scores[self.left_out.of_block(number)] = -torch.inf
            total = torch.logaddexp(total, scores.logsumexp(1))
        return total, torch.cat(picked)

    def gradient(
        self, x: Tensor, part: Tensor, number: int, total: Tensor, grads: tuple[Tensor, ...]
    ) -> Tensor:
        """The gradient of the products <x, w_l> of a block, (A, b), in `precision`.

        `total` (A,) is the log-sum-exp, `grads` the gradients of the two results.
        """
        of_total, of_picked = grads
        # A row without any label has a sum of -inf; its softmax is 0 and not NaN.
        total = total.clamp_min(torch.finfo(total.dtype).min).unsqueeze(1)
        scores = self.scores(x, part)
        scores[self.left_out.of_block(number)] = -torch.inf
        grad = scores.sub_(total).exp_().mul_(of_total.unsqueeze(1))
        pairs = slice(self.picked.ends[number], self.picked.ends[number + 1])
        grad[self.picked.of_block(number)] += of_picked[pairs]
        return grad.div_(self.temperature).to(self.precision)


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
    scoring = Scoring(temperature, block, picked, left_out, precision or x.dtype)
    outs = _LogSumExp.apply(x, w, scoring)
    return outs[0], outs[1]


class _LogSumExp(torch.autograd.Function):
    """The gradient of log-sum-exp is the softmax, which each block gives once the sum is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
        ctx.scoring = scoring
        total, picked = scoring.sums(x, w.split(scoring.block))
        ctx.save_for_backward(x, w, total)
        return total, picked

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, total = ctx.saved_tensors
        scoring = ctx.scoring
        cast = x.to(scoring.precision)
        grad_x, grad_w = torch.zeros_like(x), torch.empty_like(w)
        parts = zip(w.split(scoring.block), grad_w.split(scoring.block))
        for number, (part, grad_part) in enumerate(parts):
            grad = scoring.gradient(x, part, number, total, grads)
            grad_x += grad @ part.to(scoring.precision)
            grad_part.copy_(grad.T @ cast)
        return grad_x, grad_w, None
