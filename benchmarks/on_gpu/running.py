"""Runs each part of a benchmark in its own process, with a time limit.

After a CUDA error a process cannot use the GPU any more. So a part that fails, crashes or takes too
long loses its own rows alone. The processes are forked from a server that has imported all modules
once (`PRELOAD`; imports take ten seconds) and has not touched a GPU.
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
    floor: float | None = None  # what the arithmetic or the traffic alone takes, in the same unit
    aim: float | None = None  # the target, in the same unit
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows of a part, and how it ended."""

    name: str
    seconds: float
    rows: list[dict]
    failure: str | None  # one sentence, or None
    late: bool  # whether it failed because its time was over


def run_part(name: str, part: Callable, arguments: tuple, limit: float, log: Path) -> Outcome:
    """Calls `part(*arguments, tell)` in its own process, for at most `limit` seconds.

    `tell(row)` appends a row to `log` (JSON lines) at once, so that a killed part keeps its rows.
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
    """Starts the imports of the server, which then run while the caller goes on."""
    _context()
    forkserver.ensure_running()


def _context() -> multiprocessing.context.BaseContext:
    # CUDA must not start before the fork; with this torch counts GPUs without starting it
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # cuBLAS reads it when CUDA starts, and refuses deterministic algorithms without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _child(part: Callable, arguments: tuple, log: Path) -> None:
    os.setsid()  # its own process group, so that all processes that it starts can be ended with it
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
    """Ends the process and all that it started, whether or not it still runs."""
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            if not process.is_alive():
                break
            process.kill()  # it has not made its group yet
        process.join(wait)
    process.join()


def _read(log: Path) -> list[dict]:
    """The lines that were written to their end."""
    if not log.exists():
        return []
    lines = log.read_text().split("\n")[:-1]  # what follows the last newline is '' or half a line
    return [json.loads(line) for line in lines]


def _exit(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
