"""Runs the benchmarks of a machine without a GPU: a JSON file, and the table of docs/speed.md.

make bench                                   all of them, about half an hour on two cores
python -m benchmarks.run --only metrics      one of them; the others keep their figures
python -m benchmarks.run --table             the table of the figures that are stored

Each benchmark is a process of its own, with nothing beside it. Its figures go to
benchmarks/results/<machine>.json. One that fails keeps its last figures, and the exit code is 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks/results", ROOT / "docs/speed.md"
START, END = "<!-- table of `make bench` -->", "<!-- end of the table -->"

# name of a benchmark: its words on the command line, sized for two cores
RUNS = {
    "training_step": ["--labels", "16", "--repeats", "3"],
    "classifier_update": [],
    "prediction": [],
    "metrics": ["--repeats", "1"],
    "decoding": [],
    "nearest_titles": [],
    "stages": [],
    "scaling": ["--products", "1000", "--products", "4000", "--products", "16000"],
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: a figure of a benchmark, beside another one of the same run."""

    title: str
    run: str
    row: str
    key: str
    unit: str
    beside: str = ""  # the row of the plain way, a peer or a floor
    name: str = ""  # of what is beside it
    aim: float | None = None  # of the ratio
    more: bool = False  # whether more is better, as of a rate
    scale: float = 1.0


FIGURES = [
    Figure(
        "step of Module I from activations, ViT-B/32 and DistilBERT",
        "training_step",
        "from activations, float16",
        "seconds",
        "s",
        "from pixels",
        "from pixels",
        4,
    ),
    Figure(
        "the same, activations in int8",
        "training_step",
        "from activations, int8",
        "seconds",
        "s",
        "from pixels",
        "from pixels",
    ),
    Figure(
        "update of the classifiers, 2,800 of 303,296 labels",
        "classifier_update",
        "by rows",
        "ms",
        "ms",
        "dense",
        "dense AdamW",
        59,
    ),
    Figure(
        "dense update, fused kernel",
        "classifier_update",
        "dense, fused",
        "ms",
        "ms",
        "dense",
        "dense AdamW",
    ),
    Figure(
        "all 18 metrics, 260,000 x 100 predictions",
        "metrics",
        "ours, all 18 metrics",
        "seconds",
        "s",
        "napkinXC, 16 of them",
        "napkinXC, 16 metrics",
        10,
    ),
    Figure(
        "the same, with filter pairs",
        "metrics",
        "ours, with filter pairs",
        "seconds",
        "s",
        "napkinXC, 16 of them",
        "napkinXC, 16 metrics",
        10,
    ),
    Figure(
        "prediction, descriptors known",
        "prediction",
        "prediction, descriptors known",
        "ms_per_datapoint",
        "ms per datapoint",
    ),
    Figure(
        "prediction, from pixels and tokens",
        "prediction",
        "prediction, with encoding, from pixels and tokens",
        "ms_per_datapoint",
        "ms per datapoint",
    ),
]


def main(
    only: Annotated[list[str] | None, typer.Option(help="a benchmark; can be repeated")] = None,
    name: Annotated[str, typer.Option(help="of the machine; default by its cores")] = "",
    table: Annotated[bool, typer.Option("--table", help="run nothing, print the table")] = False,
):
    """Runs the benchmarks one after the other, then writes and prints the table."""
    if unknown := set(only or ()) - set(RUNS):
        raise SystemExit(f"--only {', '.join(sorted(unknown))} is none of {', '.join(RUNS)}")
    path = RESULTS / f"{name or f'cpu-{os.cpu_count()}-cores'}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    failed = []
    for run in [] if table else only or RUNS:
        start = time.monotonic()
        if (done := _run(run)) is None:
            failed.append(run)
            continue
        seconds = round(time.monotonic() - start)
        stored[run] = {"date": str(date.today()), "commit": _commit(), "seconds": seconds} | done
        path.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n")
    text = "\n".join(lines(stored))
    print(text)
    if not table:
        write_table(text)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what they printed is above")


def _run(name: str) -> dict | None:
    """The figures of a benchmark; None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", *RUNS[name], "--out", str(out)]
        print(f"$ python -m {' '.join(command[2:-2])}", flush=True)
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode or not out.exists():
            return None
        for drawing in out.parent.glob("*.svg"):
            (ROOT / "docs" / drawing.name).write_bytes(drawing.read_bytes())
        return {"words": RUNS[name]} | json.loads(out.read_text())


def _commit() -> str:
    """The commit that runs; '' for a copy of the project without git."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def lines(stored: dict) -> Iterator[str]:
    """The table in Markdown; a figure that is not stored is not measured."""
    yield "| what | figure | beside it, in the same run | ratio | aim |"
    yield "|---|---|---|---|---|"
    for figure in FIGURES:
        rows = stored.get(figure.run, {}).get("rows", {})
        aim = "" if figure.aim is None else f"{figure.aim:g}"
        if figure.row not in rows:
            yield f"| {figure.title} | not measured | | | {aim} |"
            continue
        value = rows[figure.row][figure.key] * figure.scale
        beside, ratio = "", ""
        if figure.beside:
            other = rows[figure.beside][figure.key] * figure.scale
            beside = f"{figure.name}: {number(other)} {figure.unit}"
            ratio = number(value / other if figure.more else other / value)
        yield f"| {figure.title} | {number(value)} {figure.unit} | {beside} | {ratio} | {aim} |"


def number(value: float) -> str:
    """Two significant digits, or the whole number where it has more."""
    if abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.2g}"


def write_table(text: str) -> None:
    """Puts the table between its marks in docs/speed.md."""
    page = PAGE.read_text()
    head, rest = page.split(START)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{START}\n{text}\n{END}{tail}")


if __name__ == "__main__":
    typer.run(main)
