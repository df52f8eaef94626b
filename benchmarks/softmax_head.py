"""The softmax over all labels: scores of all pairs at once, and blocks of labels made twice.

python -m benchmarks.softmax_head --labels 10000 --labels 100000 --out benchmarks/results/head.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn.functional import normalize

from benchmarks.timing import interleaved, spread, tell
from mufin import devices
from mufin.ragged import Lists
from mufin.training.every_label import BLOCK, EveryLabel, every_label, softmax_of_vectors
from mufin.training.losses import multi_positive_softmax

TEMPERATURE = 0.1
POSITIVES, EXCLUDED = 8, 1  # labels per datapoint
LABELS = [10_000, 30_000, 100_000, 300_000]


def main(
    labels: Annotated[list[int], typer.Option()] = LABELS,
    datapoints: int = 128,
    dim: int = 192,
    repeats: int = 3,
    plain_gb: Annotated[float, typer.Option(help="scores of the plain way, at most")] = 1.0,
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Milliseconds and peak memory of forward and backward, for each number of labels."""
    device, rows = devices.device(), {}
    for count in labels:
        ways = _ways(count, datapoints, dim, device)
        if 4e-9 * count * datapoints > plain_gb:
            del ways["plain"]
        peaks = {name: _peak_mb(way, device) for name, way in ways.items()}
        for name, seconds in interleaved(ways, repeats).items():
            rows[f"{name}, {count} labels"] = spread(seconds) | {"more_memory_mb": peaks[name]}
    tell(
        f"softmax of {datapoints} datapoints over all labels, vectors of {dim}, forward and "
        f"backward, {device}",
        rows,
        out,
    )


def _ways(
    labels: int, datapoints: int, dim: int, device: torch.device
) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    x, w = (
        normalize(torch.randn(n, dim, generator=generator), dim=-1).to(device).requires_grad_()
        for n in (datapoints, labels)
    )
    rng, every = np.random.default_rng(0), np.arange(datapoints)
    positives, excluded = (
        Lists.of_rows([rng.choice(labels, n, replace=False) for _ in every])
        for n in (POSITIVES, EXCLUDED)
    )
    block = max(BLOCK // datapoints, 1)
    pairs = every_label(every, positives, None, [positives, excluded], labels, block).to(device)

    def in_blocks(precision: torch.dtype) -> Callable[[], object]:
        return lambda: _stepped(softmax_of_vectors(x, w, pairs, TEMPERATURE, precision), x, w)

    def plain() -> object:
        relevant, allowed = _masks(pairs, (datapoints, labels), device)
        scores = x @ w.T / TEMPERATURE
        return _stepped(multi_positive_softmax(scores, relevant, allowed), x, w)

    ways = {"in blocks": in_blocks(torch.float32), "plain": plain}
    if device.type == "cuda":
        ways["in blocks, bf16"] = in_blocks(torch.bfloat16)
    return ways


def _masks(
    every: EveryLabel, shape: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positive pairs, and those that are not left out, (A, L) bool each."""
    masks = []
    for pairs in (every.positive, every.left_out):
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        for number in range(len(pairs.ends) - 1):
            row, place = pairs.of_block(number)
            mask[row, place + number * every.block] = True
        masks.append(mask)
    return masks[0], ~masks[1]


def _stepped(loss: torch.Tensor, *leaves: torch.Tensor) -> float:
    """The loss after its backward pass; the gradients are dropped."""
    loss.backward()
    for leaf in leaves:
        leaf.grad = None
    return float(loss.detach())


def _peak_mb(way: Callable[[], object], device: torch.device) -> float:
    """MB that a call takes at its peak: of the GPU, or of this process (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    way()  # starts threads and buffers
    Path("/proc/self/clear_refs").write_text("5")  # the peak of this process is now what it holds
    before = _status("VmRSS")
    way()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    """MB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    typer.run(main)
