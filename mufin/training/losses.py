"""The losses of Modules I and IV."""

from __future__ import annotations

import torch
from torch import Tensor


def triplet(
    positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor, gamma: float
) -> Tensor:
    """Sum over positives p and negatives n of [<z, x_n> - <z, x_p> + gamma]_+, divided by A.

    The loss of MUFIN Sec. 3.1, Module I. `positive` (A, P) and `negative` (A, N) are the cosines of
    A anchors z with their positives and negatives; the masks say which entries exist. The division
    by A is not in the paper. It does not change the steps of AdamW, which do not depend on the
    scale of the loss.
    """
    gap = (negative.unsqueeze(1) - positive.unsqueeze(2) + gamma).clamp_min(0)  # (A, P, N)
    return (gap * (positive_mask.unsqueeze(2) & negative_mask.unsqueeze(1))).sum() / len(positive)


def multi_positive_softmax(
    scores: Tensor, relevant: Tensor, allowed: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Minus the mean log softmax of the relevant columns, per row and then over rows.

    `scores` (A, M) are already divided by the temperature. `allowed` (A, M) bool are the columns in
    the softmax, `relevant` (A, M) bool some of these. Rows without relevant columns are left out.
    With `weight` (A, M), above 0 where relevant, the mean of a row is weighted: it is the cross
    entropy with the target distribution weight / sum of the row's weights.
    """
    # -inf leaves a column out of the softmax. Its log probability, also -inf, must not be summed.
    log_p = scores.masked_fill(~allowed, -torch.inf).log_softmax(1).masked_fill(~relevant, 0.0)
    counts = relevant.sum(1)  # (A,)
    if weight is not None:
        weight = weight * relevant
        means = (log_p * weight).sum(1) / weight.sum(1).where(counts > 0, 1)
        return -means.sum() / (counts > 0).sum().clamp_min(1)
    return -(log_p.sum(1) / counts.clamp_min(1)).sum() / (counts > 0).sum().clamp_min(1)


def symmetric_softmax(
    scores: Tensor, relevant: Tensor, allowed: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The mean of the multi-positive softmax over columns and over rows, as in the loss of CLIP.

    An alternative loss of Module I for small catalogs, not in the paper.
    """
    rows = multi_positive_softmax(scores, relevant, allowed, weight)
    turned = None if weight is None else weight.T
    return (rows + multi_positive_softmax(scores.T, relevant.T, allowed.T, turned)) / 2


def cosine_hinge(scores: Tensor, relevant: Tensor, negative: Tensor, gamma: float) -> Tensor:
    """Sum of 1 - s over positives and [s - gamma]_+ over negatives, divided by A datapoints.

    The loss of MUFIN Sec. 3.1, Module IV. `scores` (A, M) are cosines; `relevant` and `negative`
    (A, M) bool are disjoint. As in `triplet`, the division does not change the steps of AdamW.
    """
    return ((1 - scores) * relevant + (scores - gamma).clamp_min(0) * negative).sum() / len(scores)
