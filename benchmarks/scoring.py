"""Scores of Module IV, all pairs of a step: the Gram form beside making every adapted row.

python -m benchmarks.scoring --datapoints 128 --labels 1024 --out benchmarks/results/scoring.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from mufin.nn.cross_scores import cross_scores, label_side
from torch import nn

from benchmarks.timing import interleaved, spread, tell
from mufin import runtime
from mufin.nn.mufin import Bag, Mufin


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
    torch.set_num_threads(runtime.workers())
    torch.manual_seed(0)
    device = runtime.device()
    model = Mufin({}, {}, dim, heads=1, dropout=0.0).to(device)
    x, z = (_bags(n, rows, dim, device) for n in (datapoints, labels))
    w = nn.functional.normalize(torch.randn(labels, dim, device=device), dim=-1)

    def gram():
        return _finish(cross_scores(model, x, label_side(model, z, w)), backward)

    def plain():
        scores = [
            (
                model.adapted(
                    Bag(x.rows[i].expand(labels, -1, -1), x.modality[i].expand(labels, -1)), z
                )
                * w
            ).sum(-1)
            for i in range(datapoints)
        ]
        return _finish(torch.stack(scores), backward)

    difference = float((gram() - plain()).abs().max())
    seconds = interleaved({"Gram form": gram, "every adapted row": plain}, repeats)
    tell(
        f"{datapoints} x {labels} scores, bags of {rows} x {dim}, {'forward and backward' if backward else 'forward'}, "
        f"{device}; largest difference {difference:.1e}",
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
