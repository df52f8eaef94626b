"""Seconds and memory of each stage of the built-in sample, each in a process of its own.

python -m benchmarks.stages --out benchmarks/results/stages.json

`seconds` is of the whole process, `starting` the part of it before and after the stage's own work:
Python, imports, reading and writing what the stage reports.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.timing import tell
from compare.stages import read_stages
from compare.variant import changed
from mufin import code
from mufin.artifacts.files import read_json
from mufin.profiles import FOLDER

Costs = dict[str, dict[str, float]]


def main(products: int = 3000, out: Annotated[Path | None, typer.Option()] = None):
    """Runs all stages in a temporary folder, with the settings of the profile `sample`."""
    with tempfile.TemporaryDirectory() as folder:
        costs = run(Path(folder), {"download.sample.products": products})
    every = {name: sum(cost[name] for cost in costs.values()) for name in ("seconds", "starting")}
    every["megabytes"] = max(cost["megabytes"] for cost in costs.values())
    tell(f"stages of the sample, {products} products", costs | {"all": every}, out)


def run(home: Path, settings: dict[str, object]) -> Costs:
    """Runs the stages in `home`, with `settings` (dotted names) in place of those of the sample."""
    (home / "params.yaml").write_text(changed(FOLDER / "sample.yaml", settings))
    return {stage.name: _cost(stage.name, home) for stage in read_stages(code.ROOT / "dvc.yaml")}


def _cost(stage: str, home: Path) -> dict[str, float]:
    start = time.perf_counter()
    command = [sys.executable, "-m", f"pipeline.{stage}", "--home", str(home)]
    scratch = os.environ | {"MUFIN_SCRATCH": str(home / "scratch")}
    done = subprocess.run(command, env=scratch, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr[-2000:]}")
    cost = read_json(home / f"metrics/runtime/{stage}.json")
    return {
        "seconds": seconds,
        "starting": seconds - cost["seconds"],
        "megabytes": cost["peak_memory_mb"],
    }


if __name__ == "__main__":
    typer.run(main)
