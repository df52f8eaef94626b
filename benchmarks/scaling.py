"""How seconds and memory of each stage grow with the catalog: synthetic products, fitted exponents.

python -m benchmarks.scaling --products 1000 --products 10000 --out benchmarks/results/scaling.json

The catalogs are those of the built-in sample's generator, with one epoch per module, so a figure is
that of one pass over the data, and with shortlists in place of all labels. An exponent is the slope
of log seconds over log products, between the two largest catalogs; seconds are those of the stage's
own work, without the start of a process.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.loglog import log_plot
from benchmarks.stages import Costs, run
from benchmarks.timing import tell

SETTINGS = {
    "encoder.image.self_supervised_epochs": 1,
    "pretrain.epochs": 1,
    "finetune.epochs": 1,
    # As in the paper; the sample has few labels, and takes all
    "finetune.candidates": "shortlist",
    "finetune.free_update": "auto",
    "evaluate.candidates": "shortlist",
}


def main(
    products: Annotated[list[int], typer.Option()] = [1000, 3000, 10_000],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="JSON; two plots are written beside it")] = None,
):
    """Runs all stages at each size; prints seconds, megabytes and exponents."""
    costs: dict[int, Costs] = {}
    for count in sorted(products):
        with tempfile.TemporaryDirectory() as folder:
            costs[count] = run(Path(folder), SETTINGS | {"download.sample.products": count})
        print(f"{count} products done", flush=True)
    sizes = list(costs)
    rows = {stage: _row(stage, costs) for stage in costs[sizes[0]]}
    tell(f"stages at {', '.join(map(str, sizes))} products, one epoch per module", rows, out)
    if out:
        for what, drawing in plots(sizes, costs).items():
            out.with_name(f"{out.stem}-{what}.svg").write_text(drawing)


def _row(stage: str, costs: dict[int, Costs]) -> dict[str, float]:
    row = {}
    for count, of in costs.items():
        row[f"s_{count}"] = max(_own(of[stage], "seconds"), 0.01)
        row[f"mb_{count}"] = _own(of[stage], "megabytes")
    if len(costs) > 1:
        small, large = list(costs)[-2:]
        row["exponent"] = _slope(small, large, row[f"s_{small}"], row[f"s_{large}"])
        row["exponent_mb"] = _slope(small, large, row[f"mb_{small}"], row[f"mb_{large}"])
    return row


def _slope(small: int, large: int, first: float, last: float) -> float:
    return math.log(last / first) / math.log(large / small)


def plots(sizes: list[int], costs: dict[int, Costs]) -> dict[str, str]:
    """{what is plotted: SVG}: seconds and megabytes of each stage over products."""
    out = {}
    for what, title in (("seconds", "Seconds of one pass"), ("megabytes", "Peak memory, MB")):
        lines = {
            stage: [(float(n), max(_own(costs[n][stage], what), 0.01)) for n in sizes]
            for stage in costs[sizes[0]]
        }
        out[what] = log_plot(title, "products", lines)
    return out


def _own(cost: dict[str, float], what: str) -> float:
    return cost["seconds"] - cost["starting"] if what == "seconds" else cost["megabytes"]


if __name__ == "__main__":
    typer.run(main)
