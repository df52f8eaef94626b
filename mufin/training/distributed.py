"""Several processes that train one model, started by torchrun (PyTorch's distributed runtime).

Any number of processes gives the result of one process:

1. Each process encodes its share of the products of a step.
2. All bags are gathered in all processes, with their gradients.
3. Every process computes the loss of the whole step, divided by the number of processes.
4. Gradients of parameters before the gathering (E_V, E_T, A_S) are summed over the processes.
5. Gradients of parameters after it (A_C, classifiers) are the same in all processes, so each only
   multiplies its own by the number of processes. The free vectors of millions of labels are never
   sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import pad

from mufin import environment
from mufin.errors import MufinError
from mufin.nn.bags import Bag

OF_TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")


def start(device: torch.device) -> None:
    """Joins the other processes if torchrun started this one.

    Raises MufinError if the environment names several processes and torchrun did not set it.
    """
    if (count := environment.world_size()) == 1 or dist.is_initialized():
        return
    if missing := [name for name in OF_TORCHRUN if not os.environ.get(name)]:
        raise MufinError(
            f"WORLD_SIZE is {count} and {missing[0]} is not set; start the stage with torchrun, or "
            "unset WORLD_SIZE"
        )
    if (number := environment.rank()) >= count:
        raise MufinError(
            f"RANK is {number} and WORLD_SIZE {count}; start the stage with torchrun, or unset both"
        )
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    """Waits until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def smallest(values: Tensor) -> Tensor:
    """The smallest of the `values` that the processes have, element by element."""
    if dist.is_initialized():
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def share(count: int) -> slice:
    """This process's contiguous part of `count` items; the parts differ by at most one item."""
    return slice(count * rank() // world(), count * (rank() + 1) // world())


class _GatherRows(torch.autograd.Function):
    """Equally many rows of each process, joined in the order of ranks.

    The gradient of a row is the sum over the processes, as each computes a part of the loss.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor) -> Tensor:
        out = rows.new_empty(world() * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(out, rows.contiguous())  # needs equal shapes in all processes
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(world())[rank()]  # the rows that this process gave


def gather_bags(bag: Bag, count: int) -> Bag:
    """The bags of all processes, (count, m, D), from the bags of each one's `share(count)`."""
    if world() == 1:
        return bag
    # All shares are padded to one shape: the longest bag of all, and the largest share.
    size = torch.tensor([bag.rows.shape[1]], device=bag.rows.device)
    dist.all_reduce(size, dist.ReduceOp.MAX)
    most, width = -(-count // world()), int(size)
    missing = (0, width - bag.rows.shape[1], 0, most - len(bag.rows))  # as `pad` takes it
    rows = _GatherRows.apply(pad(bag.rows, (0, 0, *missing)))  # (world x most, width, D)
    modality = _GatherRows.apply(pad(bag.modality.to(torch.int32), missing, value=-1))
    keep = _places(count, most).to(rows.device)  # drops the padding
    # The processes have drawn different amounts of random numbers by now. From here on, all must
    # draw the same dropout, or their losses would differ.
    torch.manual_seed(torch.initial_seed() + 1)
    return Bag(rows[keep], modality[keep].to(torch.int8))


def gather_rows(rows: np.ndarray, count: int, device: torch.device) -> np.ndarray:
    """The rows of all processes, (count, D) float32, from those of each one's `share(count)`.

    All processes get the same bytes, so all mine the same positives and clusters from them.
    """
    if world() == 1:
        return rows
    most = -(-count // world())
    mine = torch.zeros(most, rows.shape[1], device=device)  # padded to the largest share
    mine[: len(rows)] = torch.from_numpy(rows).to(device)
    out = mine.new_empty(world() * most, rows.shape[1])
    dist.all_gather_into_tensor(out, mine)
    return out.cpu()[_places(count, most)].numpy()


def _places(count: int, most: int) -> Tensor:
    """(count,) the place of each item among the gathered shares, each padded to `most` items."""
    parts = [(count * r // world(), count * (r + 1) // world()) for r in range(world())]
    return torch.cat([torch.arange(b - a) + r * most for r, (a, b) in enumerate(parts)])


def reduce_gradients(
    dense: Sequence[Tensor], sparse: Sequence[Tensor], after: Sequence[Tensor]
) -> None:
    """Replaces the gradients of this process by those of the whole step.

    `dense` and `sparse` (row-sparse gradients) are the parameters before the gathering; their
    gradients are summed over the processes. Gradients of the parameters `after` it are scaled.
    """
    if world() == 1:
        return
    for p in after:
        if p.grad is not None:
            p.grad = p.grad * world()  # the loss was divided by the number of processes
    for p in sparse:
        p.grad = _sum_sparse(p)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
    if grads:
        # One message for all parameters is faster than one for each.
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for p, part in zip(dense, flat.split([p.numel() for p in dense])):
            p.grad = part.view_as(p)


def _sum_sparse(p: Tensor) -> Tensor:
    """The sum over processes of a row-sparse gradient, with the rows that any process has."""
    # Sparse tensors cannot be reduced, so the gradient is sent dense, with the rows that it has.
    total, touched = torch.zeros_like(p), torch.zeros(len(p), device=p.device)
    if p.grad is not None:
        grad = p.grad.coalesce()
        total[grad.indices()[0]] = grad.values()
        touched[grad.indices()[0]] = 1
    dist.all_reduce(total)
    dist.all_reduce(touched)
    rows = touched.nonzero().squeeze(1)
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), total[rows], total.shape, check_invariants=False
    )
