"""Runs the benchmarks of a machine without a GPU: a JSON file, and the table of docs/speed.md.

make bench                                   all of them, one after the other
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
    "text_lengths": ["--titles", "512", "--layers", "1", "--pictures", "3"],
    "classifier_update": [],
    "softmax_head": ["--labels", "100000"],
    "search": ["--labels", "10000", "--repeats", "5"],
    "prediction": [],
    "metrics": ["--repeats", "1"],
    "decoding": [],
    "ingest": ["--lines", "300000", "--urls", "50000"],
    "nearest_titles": [],
    "stages": [],
    "scaling": ["--products", "1000", "--products", "10000", "--products", "100000"],
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: a figure of a benchmark, beside another one of the same run."""

    title: str
    run: str
    row: str
    key: str
    unit: str
    beside: tuple[str, str, str] | None = None  # the plain way, a peer or a floor: name, row, key
    aim: float | None = None  # of the ratio
    more: bool = False  # whether more is better, as of a rate


def _decoding(side: int) -> Figure:
    row, plain = f"{side} px to 224", ("plain Pillow", f"{side} px to 224", "plain_per_s")
    title = f"JPEGs of {side} pixels to 224, one core"
    return Figure(title, "decoding", row, "ours_per_s", "per second", plain, 2.5, more=True)


PIXELS = ("from pixels", "from pixels", "seconds")
DENSE = ("dense AdamW", "dense", "ms")
PADDED = ("padded to the longest", "padded to the longest", "ms_median")
PADDED_PICTURES = ("padded to the longest", "padded, with pictures", "ms_median")
NAPKINXC = ("napkinXC, 16 metrics", "napkinXC, 16 of them", "seconds")
HNSWLIB = ("plain hnswlib", "hnswlib, 7 rows per label", "queries_per_s")
FAISS = ("FAISS HNSW", "FAISS, 7 rows per label", "queries_per_s")
LINES = ("json + gzip", "json + gzip, 300000 lines", "lines_per_second")
STEP, UPDATE = "step of Module I, ViT-B/32 and DistilBERT", "update of 2,800 of 303,296 classifiers"
SPARSE_ADAM = "by rows, torch's SparseAdam"
FLOAT16, INT8 = "from activations, float16", "from activations, int8"
MEMORY = ("plain", "plain, 100000 labels", "more_memory_mb")

FIGURES = [
    Figure(f"{STEP}, from activations", "training_step", FLOAT16, "seconds", "s", PIXELS, 4),
    Figure("the same, activations in int8", "training_step", INT8, "seconds", "s", PIXELS),
    Figure(
        "last layer of DistilBERT, titles in groups of similar length",
        *("text_lengths", "in groups", "ms_median", "ms"),
        PADDED,
    ),
    Figure(
        "the same, with up to 3 pictures as tokens of a title",
        *("text_lengths", "in groups, with pictures", "ms_median", "ms"),
        PADDED_PICTURES,
    ),
    Figure(f"{UPDATE}, by rows", "classifier_update", "by rows", "ms", "ms", DENSE, 59),
    Figure("the same, by torch's SparseAdam", "classifier_update", SPARSE_ADAM, "ms", "ms", DENSE),
    Figure("the same, dense, fused", "classifier_update", "dense, fused", "ms", "ms", DENSE),
    Figure(
        "memory of a softmax over 100,000 labels, in blocks",
        *("softmax_head", "in blocks, 100000 labels", "more_memory_mb", "MB"),
        MEMORY,
    ),
    Figure(
        "100 of 10,000 labels by HNSW, 60,000 rows",
        *("search", "hnsw", "queries_per_s", "queries per second"),
        HNSWLIB,
        more=True,
    ),
    Figure(
        "the same, exact",
        *("search", "exact", "queries_per_s", "queries per second"),
        FAISS,
        more=True,
    ),
    Figure(
        "prediction, descriptors known",
        *("prediction", "prediction, descriptors known", "ms_per_datapoint", "ms per datapoint"),
    ),
    Figure(
        "prediction, from pixels and tokens",
        "prediction",
        "prediction, with encoding, from pixels and tokens",
        *("ms_per_datapoint", "ms per datapoint"),
    ),
    Figure(
        "all 18 metrics of 260,000 x 100 predictions",
        *("metrics", "ours, all 18 metrics", "seconds", "s"),
        NAPKINXC,
        10,
    ),
    Figure(
        "the same, with filter pairs",
        *("metrics", "ours, with filter pairs", "seconds", "s"),
        NAPKINXC,
        10,
    ),
    *map(_decoding, (500, 1500, 3000)),
    Figure(
        "lines of Amazon's metadata, download",
        *("ingest", "download, 300000 lines", "lines_per_second", "per second"),
        LINES,
        3,
        more=True,
    ),
    Figure(
        "pictures fetched from a server on this machine",
        *("ingest", "fetch, continued", "requests_per_second", "per second"),
        ("requests, 8 threads", "requests", "requests_per_second"),
        more=True,
    ),
    Figure("all stages of the sample", "stages", "all", "seconds", "s"),
    Figure("the same, peak memory", "stages", "all", "megabytes", "MB"),
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
        value, beside, ratio = rows[figure.row][figure.key], "", ""
        if figure.beside:
            name, row, key = figure.beside
            other = rows[row][key]
            beside = f"{name}: {number(other)} {figure.unit}"
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
