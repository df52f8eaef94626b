"""Scores of all pairs of a step of Module IV: the Gram form, and the rows adapted to every label.

python -m benchmarks.scoring --datapoints 128 --labels 1024 --out benchmarks/results/scoring.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from benchmarks.timing import interleaved, spread, tell
from mufin import devices
from mufin.nn.bags import Bag, Pooling
from mufin.nn.cross_attention import CrossAttention


def main(
    datapoints: int = 128,
    labels: int = 1024,
    rows: int = 5,
    dim: int = 192,
    repeats: int = 5,
    backward: bool = True,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Forward (and backward) of `datapoints` x `labels` scores, bags of `rows` rows of `dim`."""
    device = devices.device()
    torch.manual_seed(0)
    cross_attention, pooling = CrossAttention(dim).to(device), Pooling()
    x, z = (_bags(n, rows, dim, device) for n in (datapoints, labels))
    w = nn.functional.normalize(torch.randn(labels, dim, device=device), dim=-1)

    def gram():
        side = cross_attention.label_side(z, w, pooling)
        return _finish(cross_attention.scores(x, side, pooling), backward)

    def plain():
        scores = []
        for i in range(datapoints):
            same = Bag(x.rows[i].expand(labels, -1, -1), x.modality[i].expand(labels, -1))
            scores.append((cross_attention.adapted(same, z, pooling) * w).sum(-1))
        return _finish(torch.stack(scores), backward)

    difference = float((gram() - plain()).abs().max())
    seconds = interleaved({"Gram form": gram, "every adapted row": plain}, repeats)
    passes = "forward and backward" if backward else "forward"
    tell(
        f"{datapoints} x {labels} scores, bags of {rows} x {dim}, {passes}, {device}; "
        f"largest difference {difference:.1e}",
        {name: spread(s) for name, s in seconds.items()},
        out,
    )


def _bags(n: int, rows: int, dim: int, device: torch.device) -> Bag:
    return Bag(
        torch.randn(n, rows, dim, device=device, requires_grad=True),
        torch.zeros(n, rows, dtype=torch.int8, device=device),
    )


def _finish(scores: torch.Tensor, backward: bool) -> torch.Tensor:
    if backward:
        scores.square().mean().backward()
    return scores.detach()


if __name__ == "__main__":
    typer.run(main)
