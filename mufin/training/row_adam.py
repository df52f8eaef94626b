"""SparseAdam by gathers and scatters of rows: the same bits as torch's, in less time.

torch's takes the rows of each moment by a sparse mask and adds to them by sparse tensors, which
costs several passes over the indices per table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, optim


class RowAdam(optim.SparseAdam):
    """Adam of the rows that have a gradient; the moments of the others stay.

    Takes 2-D parameters (rows, D) with sparse gradients, as `nn.Embedding(sparse=True)` makes them.
    The state has the names of torch's SparseAdam.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)

    def _update(self, p: Tensor, group: dict) -> None:
        state = self.state[p]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        gradient = p.grad.coalesce()  # type: ignore[union-attr]
        rows, g = gradient.indices()[0], gradient.values()
        if not len(rows):
            return
        beta1, beta2 = group["betas"]
        mean = _moved(state["exp_avg"], rows, g.clone(), 1 - beta1)
        square = _moved(state["exp_avg_sq"], rows, g.pow(2), 1 - beta2)
        step = state["step"]
        rate = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        change = mean.div_(square.sqrt_().add_(group["eps"])).mul_(-rate)
        p.index_copy_(0, rows, change.add_(p.index_select(0, rows)))


def _moved(moment: Tensor, rows: Tensor, towards: Tensor, share: float) -> Tensor:
    """The `rows` of a moment (all, D), moved `share` of the way to `towards` (rows, D) in place.

    `towards` is overwritten; the result may be too.
    """
    old = moment.index_select(0, rows)
    new = towards.sub_(old).mul_(share).add_(old)
    moment.index_copy_(0, rows, new)
    return new
