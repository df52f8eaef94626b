"""The losses of Modules I and IV."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def triplet(
    positive: Tensor,
    negative: Tensor,
    positive_mask: Tensor,
    negative_mask: Tensor,
    gamma: float,
    temperature: float | None = None,
) -> Tensor:
    """Sum over positives p and negatives n of [<z, x_n> - <z, x_p> + gamma]_+, divided by A.

    The loss of MUFIN Sec. 3.1, Module I. `positive` (A, P) and `negative` (A, N) are the cosines of
    A anchors z with their positives and negatives; the masks say which entries exist. The division
    by A is not in the paper. It does not change the steps of AdamW, which do not depend on the
    scale of the loss.

    With `temperature` t, as in the released code, negative n of an anchor has the weight
    exp(<z, x_n> / t) / sum over its negatives, through which gradients flow too.
    """
    gap = (negative.unsqueeze(1) - positive.unsqueeze(2) + gamma).clamp_min(0)  # (A, P, N)
    gap = gap * (positive_mask.unsqueeze(2) & negative_mask.unsqueeze(1))
    if temperature is not None:
        # Not -inf: an anchor without negatives would get weights, and gradients, of NaN.
        least = torch.finfo(negative.dtype).min
        weight = (negative / temperature).masked_fill(~negative_mask, least).softmax(1)
        gap = gap * weight.unsqueeze(1)
    return gap.sum() / len(positive)


def soft_triplet(
    positive: Tensor, negative: Tensor, positive_mask: Tensor, negative_mask: Tensor
) -> Tensor:
    """Sum over positives p of softplus(log sum_n exp(s_n) - s_p), divided by A anchors.

    An alternative loss of Module I, not in the paper: a soft maximum over the negatives, where
    the hinge on the hardest few moves all vectors to one. `positive` (A, P) and `negative` (A, N)
    are cosines already divided by the temperature; the masks say which entries exist. A term is
    the cross entropy of its positive against all negatives. An anchor without negatives adds 0.
    """
    # With the lowest finite number for -inf, gradients are 0 where -inf gives NaN.
    least = torch.finfo(negative.dtype).min
    hardest = negative.masked_fill(~negative_mask, least).logsumexp(1, keepdim=True)  # (A, 1)
    terms = softplus(hardest - positive) * negative_mask.any(1, keepdim=True)  # (A, P)
    return (terms * positive_mask).sum() / len(positive)


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
