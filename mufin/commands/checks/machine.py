"""The machine: Python, cores and memory, GPU, space on disks."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from mufin import check_machine, runtime
from mufin.commands.checks.finding import (
    FAILS,
    OK,
    WARNING,
    CannotRun,
    Finding,
    gigabytes,
    output_of,
)
from mufin.commands.checks.imports import Imported

GROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
LEAST_FREE = 5e9  # bytes on a disk, where nothing is known of the run
SMI = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]


def python() -> Iterator[Finding]:
    version = sys.version_info[:3]
    text = f"{platform.python_version()} ({sys.executable})"
    try:
        fault = check_machine.python_fault((version[0], version[1], version[2]))
    except (OSError, AssertionError):  # no checkout
        fault = None
    if fault:
        yield Finding("python", FAILS, text, fault.partition("; ")[2])
    else:
        yield Finding("python", OK, text)


def cores_and_memory(needed: float | None) -> Iterator[Finding]:
    """`needed`: the bytes that a run takes, about; None if that is not known."""
    workers = runtime.workers()  # raises MufinError for a wrong MUFIN_WORKERS
    yield Finding("cores", OK, f"{workers} for work on the CPU, of {os.cpu_count()}")
    memory = total_memory()
    text = gigabytes(memory)
    if needed is None:
        yield Finding("memory", OK, text)
    elif memory < needed:
        remedy = "take a machine with more, or a smaller catalog (mufin inspect)"
        yield Finding("memory", WARNING, f"{text}; a run takes about {gigabytes(needed)}", remedy)
    else:
        yield Finding("memory", OK, f"{text}; a run takes about {gigabytes(needed)}")


def total_memory() -> int:
    """Bytes of memory of this machine, or of its container if that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # "max"
        memory = min(memory, int(GROUP.read_text()))
    return memory


def gpu(torch: Imported | None, folder: Path) -> Iterator[Finding]:
    """What torch and the driver see."""
    cards = _cards(folder)
    if torch is None or torch.error:
        reason = torch.error if torch else "it was not tried"
        yield Finding("torch", FAILS, reason, "pip install --force-reinstall torch torchvision")
        return
    cuda = f"for CUDA {torch.cuda}" if torch.cuda else "for CPUs"
    yield Finding("torch", OK, f"can be imported; made {cuda}")
    if torch.gpus:
        found = ", ".join(f"{name} with {gigabytes(size)}" for name, size in torch.gpus)
        driver = f"; driver {cards[0][2]}" if cards else ""
        yield Finding("gpu", OK, f"{found}{driver}")
    elif cards:
        text = f"torch does not see {cards[0][0]} (driver {cards[0][2]})"
        remedy = (
            f"install a driver for CUDA {torch.cuda}, or look at CUDA_VISIBLE_DEVICES"
            if torch.cuda
            else "install a torch with CUDA"
        )
        yield Finding("gpu", WARNING, text, remedy)
    else:
        yield Finding("gpu", OK, "none; the profiles sample and small-catalog run on a CPU")
    wanted = os.environ.get("MUFIN_DEVICE", "")
    if wanted.startswith("cuda") and not torch.gpus:
        text = f"it is {wanted}, and torch sees no GPU"
        yield Finding("MUFIN_DEVICE", FAILS, text, "unset it, or set it to cpu")


def _cards(folder: Path) -> list[list[str]]:
    """[name, memory, driver] of each GPU, as the driver says; none without a driver."""
    try:
        code, text, _ = output_of(SMI, folder, 15)
    except CannotRun:
        return []
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == 3] if code == 0 else []


def disk(places: dict[str, Path], needed: float | None) -> Iterator[Finding]:
    """Free space where each of the places is or would be; `needed` bytes by a run, about."""
    for name, path in places.items():
        there = next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())
        free = shutil.disk_usage(there).free
        text = f"{gigabytes(free)} free at {there}"
        known = f"; a run takes about {gigabytes(needed)}" if needed else ""
        remedy = "free space, or move it (MUFIN_SCRATCH; dvc cache dir)"
        if not os.access(there, os.W_OK):
            yield Finding(name, FAILS, f"{there} may not be written", "change its permissions")
        elif free < (needed or LEAST_FREE):
            yield Finding(name, WARNING, f"{text}{known}", remedy)
        else:
            yield Finding(name, OK, f"{text}{known}")
