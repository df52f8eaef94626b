"""How tables with a row per label are updated: chosen by sizes, so that a run can be repeated."""

from __future__ import annotations

import torch

from mufin import process_group

SHARE = 0.25  # of the free memory of a GPU: what dense AdamW may take of it beside the tables
TAKEN = 3  # float32 numbers that it takes per number of a table: gradient and two moments
# On a CPU AdamW takes as long for four rows as SparseAdam for one of the rows that a step draws
ROWS = 4


def dense_pays(labels: int, numbers: int, drawn: int, free: float | None) -> bool:
    """Whether AdamW updates all rows of eta and alpha in a step (`finetune.free_update: auto`).

    Otherwise SparseAdam updates the rows of the labels that a step draws, at most `drawn`.
    `numbers` are those of a row, `free` the bytes of free memory of a GPU, None on a CPU. On a GPU
    AdamW, the optimiser of the paper, is taken where its gradient and moments fit in a quarter of
    that memory. On a CPU it is taken where it costs about what SparseAdam costs.
    """
    if free is None:
        return labels <= ROWS * drawn
    return 4.0 * TAKEN * labels * numbers <= SHARE * free


def free_memory(device: torch.device) -> float | None:
    """Bytes of free memory of a GPU, the smallest of all processes; None on a CPU."""
    if device.type != "cuda":
        return None
    free = torch.tensor([torch.cuda.mem_get_info(device)[0]], dtype=torch.float64, device=device)
    return float(process_group.smallest(free))
