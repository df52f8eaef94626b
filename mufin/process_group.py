"""The processes of a stage: who is who, shares of its work, and rows that all of them get.

torchrun (PyTorch's distributed runtime) starts them; a process alone is a group of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from mufin import environment
from mufin.errors import MufinError

OF_TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")
SENT = 2**26  # bytes sent at once; as many are held on the device
# Longest wait for the others, whose shares may take hours more; torchrun notices one that has ended
LONGEST = timedelta(days=2)


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
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST)


def leave() -> None:
    """Leaves the other processes, as the last thing that a process of a stage does.

    Else a thread of gloo may still run while the process ends, which aborts it then. NCCL has no
    such thread, and leaving its group would wait for the others.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


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


def smallest(values: torch.Tensor) -> torch.Tensor:
    """The smallest of the `values` that the processes have, element by element."""
    if dist.is_initialized():
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def share(count: int, together: int = 1) -> slice:
    """This process's contiguous part of `count` items; see `share_of`."""
    return share_of(rank(), count, together)


def share_of(number: int, count: int, together: int = 1) -> slice:
    """The contiguous part of `count` items of the process `number`.

    The parts differ by at most one item, or group of items that stay `together`: each part but the
    last begins and ends with a group, so the groups are those of one process.
    """
    groups = -(-count // together)
    first, last = (groups * n // world() * together for n in (number, number + 1))
    return slice(first, min(last, count))


def in_shares(
    count: int,
    make: Callable[[slice], tuple[np.ndarray, ...]],
    device: torch.device,
    together: int = 1,
) -> tuple[np.ndarray, ...]:
    """The arrays that `make` returns for all `count` items, with a row per item.

    Each process makes the rows of its `share`, and all get all rows; so all must call it.
    """
    return tuple(gather(rows, device) for rows in make(share(count, together)))


def gather(rows: np.ndarray, device: torch.device) -> np.ndarray:
    """The rows of all processes, in the order of ranks, of any dtype: the same bytes in all.

    The processes may give different numbers of rows, which agree in shape and dtype. They are sent
    in blocks through `device`, which is that of this process.
    """
    if world() == 1:
        return rows
    counts = torch.zeros(world(), dtype=torch.int64, device=device)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    ends = np.cumsum(counts.cpu().numpy())
    out = np.empty((ends[-1], *rows.shape[1:]), rows.dtype)
    for number, (end, size) in enumerate(zip(ends, counts.tolist())):
        part = out[end - size : end]
        if number == rank():
            part[:] = rows
        if part.size:
            _send(torch.from_numpy(part.reshape(-1).view(np.uint8)), number, device)
    return out


def total(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The sums of the `values` of all processes, element by element; overwrites them.

    Where all but one process have 0, it is the value of that process to the last bit.
    """
    if world() > 1:
        flat = torch.from_numpy(values.reshape(-1))
        for block in flat.split(max(SENT // values.itemsize, 1)):
            sent = block.to(device)
            dist.all_reduce(sent)
            if device.type != "cpu":
                block.copy_(sent)
    return values


def _send(values: torch.Tensor, source: int, device: torch.device) -> None:
    """Overwrites `values` (n,) uint8 on the CPU by those of the process `source`."""
    for block in values.split(SENT):
        sent = block.to(device)
        dist.broadcast(sent, source)
        if device.type != "cpu":
            block.copy_(sent)
