"""The softmax over the labels of A2Q-4M: a step with its update, eta in bfloat16 and in float32."""

from __future__ import annotations

import torch

from benchmarks.on_gpu.floors import Ceilings
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell, peak_memory
from benchmarks.softmax_head import head_step
from benchmarks.timing import interleaved
from mufin import devices

LABELS, DATAPOINTS, DIM = 4_528_191, 128, 192  # the labels of A2Q-4M
TINY = 2000, 8, 8
MOVED = {True: 16, False: 32}  # bytes per number of eta: z, and eta with moments read and written


def all_labels(at: Place, tell: Tell) -> None:
    """In bfloat16 first: a smaller GPU has no memory for the step in float32."""
    labels, datapoints, dim = TINY if at.tiny else (LABELS, DATAPOINTS, DIM)
    device = devices.device()
    for half in (True, False):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        title = f"softmax over {labels:,} labels, eta in {'bf16' if half else 'fp32'}"
        step = head_step(half, labels, datapoints, dim, device)
        seconds = min(interleaved({"step": step}, 3)["step"])
        floor = at.ceilings and _floor(at.ceilings, labels, datapoints, dim, half)
        note = f"{datapoints} datapoints, with the update"
        tell(
            Row(
                figure=f"{title}: one step",
                value=1000 * seconds,
                unit="ms",
                floor=floor and 1000 * floor,
                note=note,
            )
        )
        tell(peak_memory(title))
        del step
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _floor(ceilings: Ceilings, labels: int, datapoints: int, dim: int, half: bool) -> float:
    """Seconds of scores and their two gradients, or of the traffic of the tables."""
    numbers = float(labels) * dim
    return max(6 * datapoints * numbers / ceilings.bf16, MOVED[half] * numbers / ceilings.copy)
