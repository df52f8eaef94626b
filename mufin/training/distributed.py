"""Several processes, one model, through PyTorch's own distributed runtime (torchrun).

One rule makes any number of processes equal to one: each process encodes its share of a step's products, the bags are
gathered with their gradients, every process computes the whole loss divided by their number, and the gradients of what
lies before the gathering are summed. What lies after it (A_C, classifiers) has the same gradient everywhere, times
1 / processes, so it is scaled and not sent: eta of millions of labels never travels.
"""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mufin.nn.bags import Bag


def start(device: torch.device) -> None:
    """Join the other processes if torchrun started this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def share(count: int) -> slice:
    """This process's contiguous part of `count` items; parts differ by one at most."""
    return slice(count * rank() // world(), count * (rank() + 1) // world())


class _GatherRows(torch.autograd.Function):
    """Equal-sized rows of all processes, in rank order; the gradient is summed over the processes."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        out = rows.new_empty(world() * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(out, rows.contiguous())
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(world())[rank()]


def gather_bags(bag: Bag, count: int) -> Bag:
    """The bags of all processes, (count, m, D), from each one's `share(count)`."""
    if world() == 1:
        return bag
    size = torch.tensor([bag.rows.shape[1]], device=bag.rows.device)
    dist.all_reduce(size, dist.ReduceOp.MAX)
    most, width = -(-count // world()), int(size)
    short = (0, width - bag.rows.shape[1], 0, most - len(bag.rows))
    rows = _GatherRows.apply(torch.nn.functional.pad(bag.rows, (0, 0, *short)))
    modality = _GatherRows.apply(
        torch.nn.functional.pad(bag.modality.to(torch.int32), short, value=-1)
    )
    keep = _places(count, most).to(rows.device)
    torch.manual_seed(
        torch.initial_seed() + 1
    )  # shares differ in what they drew; A_C's dropout must not, see above
    return Bag(rows[keep], modality[keep].to(torch.int8))


def gather_rows(rows: np.ndarray, count: int, device: torch.device) -> np.ndarray:
    """The rows of all processes, (count, D) float32, from each one's `share(count)`: the same bytes in every process, so
    that all mine the same positives and clusters from them."""
    if world() == 1:
        return rows
    most = -(-count // world())
    mine = torch.zeros(most, rows.shape[1], device=device)
    mine[: len(rows)] = torch.from_numpy(rows).to(device)
    out = mine.new_empty(world() * most, rows.shape[1])
    dist.all_gather_into_tensor(out, mine)
    return out.cpu()[_places(count, most)].numpy()


def _places(count: int, most: int) -> Tensor:
    """Where each of `count` items lies when every process's share is padded to `most`."""
    parts = [(count * r // world(), count * (r + 1) // world()) for r in range(world())]
    return torch.cat([torch.arange(b - a) + r * most for r, (a, b) in enumerate(parts)])


def reduce_gradients(dense: list[Tensor], sparse: list[Tensor], after: list[Tensor]) -> None:
    """Make the gradients those of the whole step: summed over the processes for `dense` and row-`sparse` parameters that
    lie before the gathering, scaled for those `after` it."""
    if world() == 1:
        return
    for p in after:
        if p.grad is not None:
            p.grad = p.grad * world()
    for p in sparse:
        p.grad = _sum_sparse(p)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
    if grads:
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for p, part in zip(dense, flat.split([p.numel() for p in dense])):
            p.grad = part.view_as(p)


def _sum_sparse(p: Tensor) -> Tensor:
    """The sum over processes of a row-sparse gradient; rows that no process touched stay absent."""
    total, touched = torch.zeros_like(p), torch.zeros(len(p), device=p.device)
    if p.grad is not None:
        grad = p.grad.coalesce()
        total[grad.indices()[0]] = grad.values()
        touched[grad.indices()[0]] = 1
    dist.all_reduce(total)
    dist.all_reduce(touched)
    rows = touched.nonzero().squeeze(1)
    return torch.sparse_coo_tensor(rows.unsqueeze(0), total[rows], total.shape)
