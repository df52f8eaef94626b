"""The update of the classifiers in a step of Module IV: by rows, and of all labels.

python -m benchmarks.classifier_update --labels 303296 --out benchmarks/results/update.json

By rows is SparseAdam on eta and alpha of the step's labels (`mufin.training.row_adam`), dense is
AdamW on those of all labels (`finetune.free_update`). Beside them: torch's own SparseAdam, and
AdamW by torch's fused kernel. The floor of the dense update
is its memory traffic, at the speed of a copy that the same run measures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.timing import interleaved, tell
from mufin import devices
from mufin.nn.classifiers import LabelClassifiers
from mufin.training.row_adam import RowAdam

WEIGHT_DECAY, LR = 0.01, 1e-4
COPIED = 2**27  # bytes
TRAFFIC = (
    8  # of a dense update, times the table: gradient set to 0; g, p, m, v read; p, m, v written
)


def main(
    labels: int = 303_296,
    dim: int = 192,
    touched: Annotated[int, typer.Option(help="labels of a step")] = 2_800,
    repeats: int = 5,
    dense: Annotated[
        bool, typer.Option(help="also AdamW of all labels: 16 bytes per number")
    ] = True,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Milliseconds of gradients and update of each way."""
    device = devices.device()
    ids = torch.randperm(labels, generator=torch.Generator().manual_seed(0))[:touched].sort()[0]
    by_rows = ("by rows", "by rows, torch's SparseAdam")
    ways = {way: _update(labels, dim, ids, device, way) for way in by_rows}
    if dense:
        ways |= {way: _update(labels, dim, ids, device, way) for way in ("dense", "dense, fused")}
    block = torch.zeros(COPIED // 4, device=device)
    ways["copy"] = lambda: block.clone()
    seconds = {n: statistics.median(s) for n, s in interleaved(ways, repeats).items()}
    rate = 2 * COPIED / seconds.pop("copy")
    slowest = max(seconds.values())
    rows = {n: {"ms": 1000 * s, "ratio": slowest / s} for n, s in seconds.items()}
    rows["floor, dense"] = {"ms": 1000 * TRAFFIC * 4 * labels * (dim + 1) / rate}
    tell(f"update of {touched} of {labels} labels, {dim} numbers each, {device}", rows, out)


def _update(
    labels: int, dim: int, ids: torch.Tensor, device: torch.device, way: str
) -> Callable[[], None]:
    """Classifiers of the touched labels, gradients of a loss, and the update."""
    table = LabelClassifiers(labels, dim).to(device)
    for part in table.tables():
        part.sparse = way.startswith("by rows")
    parameters = [part.weight for part in table.tables()]
    optimiser: torch.optim.Optimizer
    if way == "by rows":
        optimiser = RowAdam(parameters, lr=LR)
    elif way.startswith("by rows"):
        optimiser = torch.optim.SparseAdam(parameters, lr=LR)
    else:
        fused = way != "dense"
        optimiser = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY, fused=fused)
    z = torch.nn.functional.normalize(torch.randn(len(ids), dim, device=device), dim=-1)
    towards, ids = torch.randn_like(z), ids.to(device)

    def update() -> None:
        (table(ids, z) * towards).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return update


if __name__ == "__main__":
    typer.run(main)
