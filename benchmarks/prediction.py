"""Milliseconds per datapoint in batch prediction: descriptors known, stored activations, pixels.

python -m benchmarks.prediction --out benchmarks/results/prediction.json

E_V is ViT-B/32 at 224 pixels, E_T DistilBERT, with random weights; labels have random embeddings.
Retrieval is exact. The paper has 1.32 ms on a V100 (MUFIN Sec. 4).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.prediction import prediction
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place
from benchmarks.timing import tell
from mufin import devices


def main(
    labels: int = 20_000,
    datapoints: int = 128,
    tiny: Annotated[bool, typer.Option("--tiny", help="small networks, for a test")] = False,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """The part `prediction` of `benchmarks.gpu`, at a size that a CPU can do."""
    sizes = replace(
        catalog.TINY if tiny else catalog.FULL,
        products=2 * labels,
        labels=labels,
        datapoints=labels,
        held_images=catalog.ROWS // (10 if tiny else 1),
        predicted=datapoints,
        pictures=16,
    )
    rows: dict[str, dict[str, float]] = {}

    def keep(row: Row) -> None:
        if row.value is not None:
            rows[row.figure] = {row.unit.replace(" ", "_"): row.value}

    with tempfile.TemporaryDirectory() as folder:
        prediction(Place(sizes, tiny, Path(folder), None), keep)
    tell(f"prediction of {datapoints} datapoints, {labels} labels, {devices.device()}", rows, out)


if __name__ == "__main__":
    typer.run(main)
