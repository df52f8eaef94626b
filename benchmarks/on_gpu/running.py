"""Parts of a benchmark in processes of their own, within a budget of time.

A part that fails, crashes or outlasts its limit costs its own rows: a CUDA error makes a process
useless for all that follows, so each part has one. The processes are forked from a server that has
imported everything once and has never touched a GPU (`PRELOAD`): imports cost ten seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import asdict, dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Callable

PRELOAD = ["benchmarks.on_gpu.parts"]
GRACE = 5.0  # seconds between asking a process to end and ending it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of a part."""

    figure: str
    value: float | None  # None: could not be measured here; `note` says why
    unit: str
    floor: float | None = None  # what the arithmetic or the traffic alone would take, same unit
    aim: float | None = None  # what is wanted, same unit
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part gave."""

    name: str
    seconds: float
    rows: list[dict]
    failure: str | None  # one sentence, or None
    late: bool  # the failure is that its time was over


def run_part(name: str, part: Callable, arguments: tuple, limit: float, log: Path) -> Outcome:
    """Call `part(*arguments, tell)` in a process of its own, for at most `limit` seconds.

    `tell(row)` writes a row to `log` (JSON lines) at once: what a killed part had told remains.
    """
    log.unlink(missing_ok=True)
    process = _context().Process(target=_child, args=(part, arguments, log), name=name)
    start = time.monotonic()
    process.start()
    try:
        process.join(limit)
        late = process.is_alive()
    finally:
        _end(process)
    lines = _read(log)
    told = [line for line in lines if "failure" not in line]
    failure = next((line["failure"] for line in lines if "failure" in line), None)
    if late:
        failure = f"stopped at its limit of {limit:.0f} s"
    elif failure is None and process.exitcode:
        failure = _exit(process.exitcode)
    return Outcome(name, round(time.monotonic() - start, 1), told, failure, late)


def warm_up() -> None:
    """Begin the server's imports now, beside what the caller does next."""
    _context()
    forkserver.ensure_running()


def _context() -> multiprocessing.context.BaseContext:
    # CUDA must not be asked before the fork; this makes torch count GPUs without starting CUDA
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # without it cuBLAS refuses deterministic algorithms; read when CUDA starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _child(part: Callable, arguments: tuple, log: Path) -> None:
    os.setsid()  # a group of its own, so that what it starts ends with it
    with open(log, "a") as file:

        def write(line: dict) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        try:
            part(*arguments, lambda row: write(asdict(row)))
        except BaseException as error:
            traceback.print_exc()
            reason = " ".join(str(error).split())[:300]
            write(
                {"failure": f"{type(error).__name__}: {reason}" if reason else type(error).__name__}
            )


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """End the process and all that it started, whether or not it is still running."""
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            if not process.is_alive():
                break
            process.kill()  # its group is not there yet
        process.join(wait)
    process.join()


def _read(log: Path) -> list[dict]:
    """The lines that were written whole."""
    if not log.exists():
        return []
    lines = log.read_text().split("\n")[:-1]  # after the last end of line: nothing, or half a line
    return [json.loads(line) for line in lines]


def _exit(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
