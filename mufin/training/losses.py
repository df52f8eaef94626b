"""The losses of Modules I and IV."""

from __future__ import annotations

import torch
from torch import Tensor


def triplet(
    positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor, gamma: float
) -> Tensor:
    """Sum over P x N of [<z, x_n> - <z, x_p> + gamma]_+, divided by the number of anchors (MUFIN Sec. 3.1, Module I).

    `positive` (A, P) and `negative` (A, N) are cosines, the masks say which entries exist. AdamW does not see the
    division.
    """
    gap = (negative.unsqueeze(1) - positive.unsqueeze(2) + gamma).clamp_min(0)  # (A, P, N)
    return (gap * (positive_mask.unsqueeze(2) & negative_mask.unsqueeze(1))).sum() / len(positive)


def multi_positive_softmax(scores: Tensor, relevant: Tensor, allowed: Tensor) -> Tensor:
    """-mean over rows, and over a row's relevant columns, of log softmax over its allowed columns.

    `scores` (A, M) already divided by the temperature; `relevant`, `allowed` bool, relevant within allowed; a row
    without a relevant column counts 0.
    """
    log_p = scores.masked_fill(~allowed, -torch.inf).log_softmax(1).masked_fill(~relevant, 0.0)
    counts = relevant.sum(1)
    return -(log_p.sum(1) / counts.clamp_min(1)).sum() / (counts > 0).sum().clamp_min(1)


def symmetric_softmax(scores: Tensor, relevant: Tensor, allowed: Tensor) -> Tensor:
    """The multi-positive softmax over columns and over rows, averaged (METHOD of small catalogs, Module I)."""
    rows = multi_positive_softmax(scores, relevant, allowed)
    return (rows + multi_positive_softmax(scores.T, relevant.T, allowed.T)) / 2


def cosine_hinge(scores: Tensor, relevant: Tensor, negative: Tensor, gamma: float) -> Tensor:
    """Sum of (1 - s) over positives plus [s - gamma]_+ over negatives, over A datapoints (MUFIN Sec. 3.1, Module IV).

    `scores` (A, M) cosines; `relevant` and `negative` bool, disjoint. Divided by A, which AdamW does not see.
    """
    return ((1 - scores) * relevant + (scores - gamma).clamp_min(0) * negative).sum() / len(scores)
