"""The softmax over all labels that updates their free vectors eta, in bfloat16, block by block.

As in ELMO (Zhang et al., ICML 2025): the backward pass makes the gradient of a block of labels and
updates the block at once, so that no gradient of the whole table exists, and eta is in bfloat16
with stochastic rounding. ELMO uses SGD without momentum; here AdamW as elsewhere in Module IV, its
moments in bfloat16 too, so that the learning rates stay valid. Per number of eta this takes 6 bytes
in place of 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mufin import process_group
from mufin.nn.classifiers import LabelClassifiers
from mufin.training.every_label import EveryLabel, softmax_loss
from mufin.training.fused_adamw import FusedAdamW
from mufin.training.softmax_head import Scoring


def fused_softmax(
    x: Tensor,
    z: Tensor,
    classifiers: LabelClassifiers,
    eta: FusedAdamW,
    every: EveryLabel,
    temperature: float,
    precision: torch.dtype | None = None,
) -> Tensor:
    """`every_label.softmax_of_vectors` of the classifiers of all labels; its backward updates eta.

    `x` (A, D) and the label embeddings `z` (L, D) have gradients, and so has alpha. The backward
    pass may run once per `eta.begin`.
    """
    scoring = Scoring(
        temperature, every.block, every.positive, every.left_out, precision or x.dtype
    )
    outs = _FusedLogSumExp.apply(x, z, classifiers.mix.weight, classifiers, eta, scoring)
    return softmax_loss(outs[0], outs[1], every)


class _FusedLogSumExp(torch.autograd.Function):
    """`softmax_head.log_sum_exp` of classifiers that are made block by block from z and eta."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        z: Tensor,
        logits: Tensor,
        classifiers: LabelClassifiers,
        eta: FusedAdamW,
        scoring: Scoring,
    ) -> tuple[Tensor, Tensor]:
        ctx.given = classifiers, eta, scoring
        parts = _parts(scoring.block, z, logits, eta.table)
        total, picked = scoring.sums(x, (classifiers.combined(*part) for part in parts))
        ctx.save_for_backward(x, z, logits, total)
        return total, picked

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, z, logits, total = ctx.saved_tensors
        classifiers, eta, scoring = ctx.given
        cast, grad_x = x.to(scoring.precision), torch.zeros_like(x)
        wanted = ctx.needs_input_grad[1:3]
        grad_z, grad_logits = (
            torch.empty_like(t) if want else None for t, want in zip((z, logits), wanted)
        )
        for number, part in enumerate(_parts(scoring.block, z, logits, eta.table)):
            leaves = [t.detach().to(x.dtype).requires_grad_() for t in part]
            with torch.enable_grad():
                w = classifiers.combined(*leaves)
            grad = scoring.gradient(x, w.detach(), number, total, grads)
            grad_x += grad @ w.detach().to(scoring.precision)
            of_parts = torch.autograd.grad(w, leaves, (grad.T @ cast).to(x.dtype))
            first = number * scoring.block
            for whole, of_part in zip((grad_z, grad_logits), of_parts):
                if whole is not None:
                    whole[first : first + len(of_part)] = of_part
            # Every process has the gradient of its share of the loss: they are equal
            eta.update(first, of_parts[2] * process_group.world())
        return grad_x, grad_z, grad_logits, None, None, None


def _parts(block: int, *tables: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each block of labels, of all `tables` (L, ...)."""
    return zip(*(t.split(block) for t in tables))
