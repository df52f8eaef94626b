"""The softmax over all labels: scores of all pairs at once, and blocks of labels made twice.

Then whole steps with the update of eta and alpha: in float32, and with eta in bfloat16, updated in
the backward pass (`finetune.free_precision`). Their memory has tables and moments in it.

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
from mufin.nn.classifiers import LabelClassifiers
from mufin.ragged import Lists
from mufin.training.every_label import BLOCK, EveryLabel, every_label, softmax_of_vectors
from mufin.training.fused_adamw import FusedAdamW
from mufin.training.fused_head import fused_softmax
from mufin.training.losses import multi_positive_softmax

TEMPERATURE, RATE = 0.1, 1e-3
POSITIVES, EXCLUDED = 8, 1  # labels per datapoint
LABELS = [10_000, 30_000, 100_000, 300_000]


def main(
    labels: Annotated[list[int], typer.Option()] = LABELS,
    datapoints: int = 128,
    dim: int = 192,
    repeats: int = 3,
    plain_gb: Annotated[float, typer.Option(help="scores of the plain way, at most")] = 1.0,
    steps: Annotated[bool, typer.Option(help="also whole steps, with updates")] = True,
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
        del ways
        for half in (False, True) if steps else ():
            name = f"step with update, eta in {'bf16' if half else 'fp32'}, {count} labels"
            rows[name] = step_figures(half, count, datapoints, dim, repeats, device)
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
    pairs = _pairs(labels, datapoints, device)

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


def _pairs(labels: int, datapoints: int, device: torch.device) -> EveryLabel:
    """The true and the excluded labels of each datapoint, at random."""
    rng, every = np.random.default_rng(0), np.arange(datapoints)
    positives, excluded = (
        Lists.of_rows([rng.choice(labels, n, replace=False) for _ in every])
        for n in (POSITIVES, EXCLUDED)
    )
    block = max(BLOCK // datapoints, 1)
    return every_label(every, positives, None, [positives, excluded], labels, block).to(device)


def step_figures(
    half: bool, labels: int, datapoints: int, dim: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """Times of a step with its update, and the peak of all memory that it takes, tables included.

    z, the embeddings of the labels, have no gradient, as with `finetune.train_labels: false`.
    """
    start = _start_of_peak(device)
    step = head_step(half, labels, datapoints, dim, device)
    _start_of_peak(device)  # drawing the tables takes more for a moment
    seconds = interleaved({"step": step}, repeats)["step"]
    return spread(seconds) | {"memory_mb": _peak_since(start, device)}


def head_step(
    half: bool, labels: int, datapoints: int, dim: int, device: torch.device
) -> Callable[[], float]:
    """A step of the classifiers of all labels, with AdamW: returns its loss."""
    torch.manual_seed(0)  # of eta
    generator = torch.Generator(device).manual_seed(0)
    x, z = (
        normalize(torch.randn(n, dim, generator=generator, device=device), dim=-1)
        for n in (datapoints, labels)
    )
    x.requires_grad_()
    pairs, count = _pairs(labels, datapoints, device), iter(range(10**9))
    precision = torch.bfloat16 if device.type == "cuda" else None
    with device:
        classifiers = LabelClassifiers(labels, dim)
    for table in classifiers.tables():
        table.sparse = False
    if half:
        table = classifiers.free.weight
        table.data = table.data.bfloat16()
        eta = FusedAdamW(table, 0.01)
        trained = [classifiers.mix.weight]
    else:
        trained = [table.weight for table in classifiers.tables()]
    optimiser = torch.optim.AdamW(trained, RATE, fused=device.type == "cuda")

    def step() -> float:
        if half:
            eta.begin(RATE, next(count))
            loss = fused_softmax(x, z, classifiers, eta, pairs, TEMPERATURE, precision)
        else:
            weights = (table.weight for table in classifiers.tables())
            w = classifiers.combined(z, *reversed(list(weights)))
            loss = softmax_of_vectors(x, w, pairs, TEMPERATURE, precision)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        x.grad = None
        return float(loss.detach())

    return step


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
    if device.type != "cuda":
        way()  # starts threads and buffers
    before = _start_of_peak(device)
    way()
    return _peak_since(before, device)


def _start_of_peak(device: torch.device) -> float:
    """MB in use now; the peak is measured from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak of this process is now what it holds
    return _status("VmRSS")


def _peak_since(start: float, device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20 - start
    return _status("VmHWM") - start


def _status(name: str) -> float:
    """MB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    typer.run(main)
