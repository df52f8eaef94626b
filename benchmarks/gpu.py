"""Correctness, speed and memory of the library on one GPU at the paper's sizes, in eight minutes.

make bench-gpu                           runs it with PYTHON if that has torch, else with .venv
python -m benchmarks.gpu --minutes 8     writes benchmarks/results/gpu-<card>.json after every part
python -m benchmarks.gpu --tiny          a rehearsal: all parts on a CPU, small, in under a minute

It needs no network, no data, and none of dvc, polars, hnswlib, ruamel.yaml and scikit-learn.
Weights and descriptors are random numbers from a seed: it measures speed, memory and rounding, not
quality.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.on_gpu.running import run_part, warm_up

NEEDED = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "numpy",
    "scipy",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "tqdm",
    "PIL",
    "requests",
    "pytest",
    "hypothesis",
    "yaml",
)
ROOT = Path(__file__).resolve().parents[1]
BUDGET = 480.0  # seconds that the parts' own limits are made for
RESERVE = 8.0  # seconds kept for the last part's end and the table
WORTH = 5.0  # seconds: a part with less time left is not started


def main(
    minutes: Annotated[float, typer.Option(help="Time for all parts, start included.")] = 8.0,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Rehearse on a CPU, small; no figure means anything.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="A part to run; can be repeated.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON; default benchmarks/results/gpu-<card>.json.")
    ] = None,
    commit: Annotated[str, typer.Option(help="For a copy of the project without git.")] = "",
):
    """Run all parts within `minutes`, print one table, write JSON after every part.

    The exit code is 1 if a part failed, and 0 if there was only too little time.
    """
    start = time.monotonic()
    _check_packages()
    if tiny:
        # one thread: more do not speed up steps of a millisecond, and are slow on a busy machine
        os.environ |= {"MUFIN_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "MUFIN_WORKERS": "1"}
    warm_up()
    _check(tiny, only)
    from benchmarks.on_gpu import catalog, parts
    from benchmarks.on_gpu.training import Place

    report = {
        "question": __doc__.splitlines()[0],
        "sizes": "tiny" if tiny else "300K",
        "minutes": minutes,
        "commit": commit or _commit(),
        "machine": {},
        "parts": {},
    }
    with tempfile.TemporaryDirectory(dir=_scratch(), prefix="mufin-gpu-") as scratch:
        at = Place(catalog.TINY if tiny else catalog.FULL, tiny, Path(scratch), None)

        def run(name: str, part, most: float):
            left = minutes * 60 - (time.monotonic() - start) - RESERVE
            limit = min(left, most * minutes * 60 / BUDGET)
            if left < WORTH:
                return {
                    "seconds": 0.0,
                    "rows": [],
                    "failure": "not started: no time was left",
                    "late": True,
                }
            done = run_part(name, part, (at,), limit, at.folder / f"{name}.jsonl")
            return {key: value for key, value in asdict(done).items() if key != "name"}

        described = run("describe", parts.describe, 90)
        report["machine"] = {row["figure"]: row["note"] for row in described["rows"]}
        for name, part in parts.PARTS.items():
            if only and name not in (*only, "ceilings"):
                continue
            _say(f"{part.title} ({time.monotonic() - start:.0f} s of {minutes * 60:.0f})")
            report["parts"][name] = {"title": part.title} | run(name, part.run, part.most)
            if name == "ceilings":
                at = replace(at, ceilings=parts.read_ceilings(report["parts"][name]["rows"]))
            report["seconds"] = round(time.monotonic() - start, 1)
            _write(report, out, tiny)
    _print(report)
    if any(part["failure"] and not part["late"] for part in report["parts"].values()):
        raise SystemExit(1)


def _check_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _fail(
            f"this Python ({sys.executable}) has no {', '.join(missing)}; run `make setup`, or set "
            "PYTHON to one that has them"
        )


def _check(tiny: bool, only: list[str] | None) -> None:
    import torch

    from benchmarks.on_gpu.parts import PARTS

    if unknown := set(only or ()) - set(PARTS):
        _fail(f"--only {', '.join(sorted(unknown))} is no part; the parts are {', '.join(PARTS)}")
    if not tiny and not torch.cuda.is_available():
        _fail(
            "torch sees no CUDA device on this machine; run on one that has a GPU, or rehearse on "
            "the CPU with --tiny"
        )


def _commit() -> str:
    """The commit that runs, with `+changes` where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + "+changes" * bool(
            git("status", "--porcelain")
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _scratch() -> Path | None:
    """The folder of temporary files: /dev/shm (memory, as fast as a fast disk) if it has 16 GiB
    free, else None for the default."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        stat = os.statvfs(memory)
        if stat.f_bavail * stat.f_frsize > 16 * 2**30:
            return memory
    return None


def _write(report: dict, out: Path | None, tiny: bool) -> None:
    if out is None and tiny:
        return  # a rehearsal leaves no file
    card = re.sub(r"[^a-z0-9]+", "-", report["machine"].get("card", "unknown").lower()).strip("-")
    path = out or ROOT / f"benchmarks/results/gpu-{card}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(part, path)


def _print(report: dict) -> None:
    machine = report["machine"]
    print(
        f"{machine.get('card', 'unknown card')}, driver {machine.get('driver') or '-'}, torch "
        f"{machine.get('torch', '?')}, commit {report['commit']}, {report['sizes']} sizes, "
        f"{report['seconds']:.0f} s"
    )
    print(f"{'figure':72s}{'':>12s} {'unit':22s}{'floor':>10s}{'ratio':>8s}{'aim':>8s}")
    for part in report["parts"].values():
        print(
            f"\n{part['title']} ({part['seconds']:.0f} s)"
            + (f": {part['failure']}" if part["failure"] else "")
        )
        for row in part["rows"]:
            print(_line(row))


def _line(row: dict) -> str:
    value, floor = row["value"], row["floor"]
    ratio = value / floor if value is not None and floor else None
    cells = [_number(value), _number(floor), _number(ratio), _number(row["aim"])]
    return (
        f"{row['figure']:72s}{cells[0]:>12s} {row['unit']:22s}{cells[1]:>10s}{cells[2]:>8s}"
        f"{cells[3]:>8s}  {row['note']}"
    ).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(sentence: str) -> None:
    _say(f"error: {sentence}")
    raise SystemExit(1)


if __name__ == "__main__":
    # on SIGTERM too it must remove its files, some of which are in memory, and end its parts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    typer.run(main)
