"""The losses of Module IV over all labels of a large catalog, block by block of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mufin.nn.bags import Bag
from mufin.ragged import Lists
from mufin.training import losses
from mufin.training.softmax_head import Pairs, log_sum_exp

BLOCK = 2**22  # scores per block: 17 MB in float32
AT_ONCE = 2**24  # scores that are made at once, with an (A, L) matrix
# What adapts each datapoint to each label (A_C, ConCat) holds many numbers per score, for A_C a
# product of two bag sizes. Both limits are so many times smaller.
BLOCK_OF_PAIRS, PAIRS_AT_ONCE = BLOCK // 64, AT_ONCE // 16


def labels_per_block(batch: int, labels: int, by_pair: bool) -> int | None:
    """How many labels a step of `batch` datapoints scores at once; None where that is all.

    By sizes alone: small catalogs keep the plain losses, to the last bit. `by_pair`: the network
    adapts each datapoint to each label.
    """
    block, most = (BLOCK_OF_PAIRS, PAIRS_AT_ONCE) if by_pair else (BLOCK, AT_ONCE)
    return None if batch * labels <= most else max(block // batch, 1)


@dataclass(frozen=True, slots=True)
class EveryLabel:
    """What is true of A datapoints and all L labels, without an (A, L) matrix.

    All labels that are neither positive nor left out are negatives.
    """

    count: int  # A
    block: int  # labels per block
    positive: Pairs
    left_out: Pairs  # true labels that are no positives, and filter pairs
    weight: Tensor | None = None  # (P,) float32, of the positive pairs; None: all alike

    def to(self, device: torch.device) -> EveryLabel:
        weight = None if self.weight is None else self.weight.to(device, non_blocking=True)
        positive, left_out = self.positive.to(device), self.left_out.to(device)
        return EveryLabel(self.count, self.block, positive, left_out, weight)


def every_label(
    datapoints: np.ndarray,
    positives: Lists,
    weights: np.ndarray | None,
    others: list[Lists],
    labels: int,
    block: int,
) -> EveryLabel:
    """Of `datapoints` (A,), whose `positives` have `weights` (nnz,) float32.

    Labels in `others` that are no positives are left out.
    """
    count = len(datapoints)

    def keys(lists: Lists) -> np.ndarray:
        part = lists.take(datapoints)
        return part.values.astype(np.int64) * count + part.rows()  # by label, then by datapoint

    def pairs(of: np.ndarray) -> Pairs:
        return Pairs.of(of % count, of // count, labels, block)

    mine = keys(positives)
    order = np.argsort(mine)
    rest = np.setdiff1d(np.concatenate([keys(lists) for lists in others]), mine)
    weight = None
    if weights is not None:
        positions, _ = positives.positions(datapoints)
        weight = torch.from_numpy(weights[positions][order].astype(np.float32))
    return EveryLabel(count, block, pairs(mine[order]), pairs(rest), weight)


def softmax_of_vectors(
    x: Tensor, w: Tensor, every: EveryLabel, temperature: float, precision: torch.dtype | None
) -> Tensor:
    """The multi-positive softmax of scores <x, w_l> / temperature; `x` (A, D), `w` (L, D)."""
    found = log_sum_exp(x, w, temperature, every.block, every.positive, every.left_out, precision)
    return softmax_loss(*found, every)


T = TypeVar("T")
Scores = Callable[[Bag, Bag, Tensor], Tensor]  # of bags x (A, m, D), z (b, m, D), w (b, D): (A, b)


def softmax_of_bags(
    scores: Scores, x: Bag, z: Bag, w: Tensor, every: EveryLabel, temperature: float
) -> Tensor:
    """The multi-positive softmax of any scores; the backward pass makes each block again."""

    def block(made: Tensor, number: int) -> tuple[Tensor, Tensor]:
        made = made / temperature
        # The lowest finite number: with -inf a block of which all is left out has gradients of NaN.
        out = _mask(made, every.left_out, number)
        total = made.masked_fill(out, torch.finfo(made.dtype).min).logsumexp(1)
        return total, made[every.positive.of_block(number)]

    totals, picked = zip(*_in_blocks(scores, x, z, w, every, block))
    return softmax_loss(torch.stack(totals).logsumexp(0), torch.cat(picked), every)


def hinge_of_bags(
    scores: Scores, x: Bag, z: Bag, w: Tensor, every: EveryLabel, gamma: float
) -> Tensor:
    """The cosine hinge of any scores; the backward pass makes each block again."""

    def block(made: Tensor, number: int) -> tuple[Tensor]:
        relevant = _mask(made, every.positive, number)
        negative = ~(relevant | _mask(made, every.left_out, number))
        return (losses.cosine_hinge(made, relevant, negative, gamma),)

    return torch.stack([part for (part,) in _in_blocks(scores, x, z, w, every, block)]).sum()


def _in_blocks(
    scores: Scores,
    x: Bag,
    z: Bag,
    w: Tensor,
    every: EveryLabel,
    block: Callable[[Tensor, int], T],
) -> list[T]:
    """What `block` makes of the scores of each block and its number."""

    def run(rows: Tensor, z_rows: Tensor, kinds: Tensor, w: Tensor, number: int) -> T:
        return block(scores(Bag(rows, x.modality), Bag(z_rows, kinds), w), number)

    # Of `split` the gradient is one tensor of all labels; of slices it would be one per slice.
    parts = zip(*(t.split(every.block) for t in (z.rows, z.modality, w)))
    return [
        checkpoint(run, x.rows, *part, number, use_reentrant=False)
        for number, part in enumerate(parts)
    ]


def _mask(scores: Tensor, pairs: Pairs, number: int) -> Tensor:
    """(A, b) bool, true for the pairs of a block."""
    mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    mask[pairs.of_block(number)] = True
    return mask


def softmax_loss(total: Tensor, picked: Tensor, every: EveryLabel) -> Tensor:
    """`losses.multi_positive_softmax` of log-sum-exp (A,) and the scores of positives (P,)."""
    weight = torch.ones_like(picked) if every.weight is None else every.weight.to(picked.dtype)
    zeros, row = picked.new_zeros(every.count), every.positive.row
    weights = zeros.index_add(0, row, weight)  # (A,)
    there = weights > 0
    means = zeros.index_add(0, row, picked * weight) / weights.where(there, 1)
    return -(means - total.where(there, 0)).sum() / there.sum().clamp_min(1)
