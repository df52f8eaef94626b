"""The parts of benchmarks.gpu, the most important first, and how long each may take."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch

from benchmarks.on_gpu.all_labels import all_labels
from benchmarks.on_gpu.compiled import compiled
from benchmarks.on_gpu.equality import equality
from benchmarks.on_gpu.floors import Ceilings, measure_ceilings
from benchmarks.on_gpu.prediction import prediction, retrieval
from benchmarks.on_gpu.processes import processes
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.sample_run import sample
from benchmarks.on_gpu.training import Place, Tell, module_four, module_one, precision
from mufin import devices


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the benchmark."""

    title: str
    run: Callable[[Place, Tell], None]
    most: float  # seconds it may take of eight minutes


CEILINGS = {  # field of `Ceilings`: figure, unit, size of the unit
    "bf16": ("matrix product, bf16", "TFLOP/s", 1e12),
    "fp32": ("matrix product, float32, TF32 off", "TFLOP/s", 1e12),
    "copy": ("copy in device memory, read plus written", "TB/s", 1e12),
    "host": ("copy from pinned host memory", "GB/s", 1e9),
}


def ceilings(at: Place, tell: Tell) -> None:
    """The card's ceilings, from which the floors of the other parts are computed."""
    found = measure_ceilings(devices.device(), at.tiny)
    for name, (figure, unit, size) in CEILINGS.items():
        tell(Row(figure=figure, value=getattr(found, name) / size, unit=unit))


def read_ceilings(rows: list[dict]) -> Ceilings | None:
    """The ceilings in the rows of the part `ceilings`; None if it did not finish."""
    told = {row["figure"]: row["value"] for row in rows}
    if not all(figure in told for figure, _, _ in CEILINGS.values()):
        return None
    return Ceilings(**{name: told[figure] * size for name, (figure, _, size) in CEILINGS.items()})


PARTS = {
    "ceilings": Part("ceilings of the card", ceilings, 40),
    "equality": Part("1. GPU equals CPU", equality, 110),
    "precision": Part("2. bf16 against fp32, deterministic algorithms", precision, 110),
    "module-one": Part("3. Module I at the paper's sizes", module_one, 120),
    "module-four": Part("4. Module IV at the paper's sizes", module_four, 90),
    "retrieval": Part("5. exact retrieval", retrieval, 60),
    "prediction": Part("6. prediction", prediction, 80),
    "all-labels": Part("7. the softmax over 4.5 million labels", all_labels, 40),
    "compiled": Part("8. torch.compile in Module I", compiled, 90),
    "processes": Part("9. two processes, where there are two GPUs", processes, 90),
    "sample": Part("10. the sample, Modules I to IV", sample, 150),
}


def describe(at: Place, tell: Tell) -> None:
    """The machine, as notes; in its own process, so that no other one uses GPU memory for it."""
    device = devices.device()
    gpu = device.type == "cuda"
    facts = {
        "card": torch.cuda.get_device_name(device) if gpu else "none",
        "gpu_memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        if gpu
        else None,
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "precision": str(devices.precision()),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    for name, value in facts.items():
        tell(Row(figure=name, value=None, unit="", note="" if value is None else str(value)))


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return (
            subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
            .stdout.splitlines()[0]
            .strip()
        )
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
