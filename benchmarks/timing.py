"""Times two ways in turns, so that a busy machine slows both; prints and saves the figures."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Callable

import torch


def interleaved(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call: `repeats` per way, after one call that does not count.

    Every second round goes backwards: what comes after a way that fills the caches is slower.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(repeats + 1):
        for name, way in list(ways.items())[:: 1 if round_number % 2 else -1]:
            start = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def tell(question: str, rows: dict[str, dict[str, float]], out: Path | None) -> None:
    """Prints a table and, with `out`, writes JSON that also names the machine."""
    print(question)
    for name, figures in rows.items():
        print(f"  {name:36s}" + "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(
            json.dumps({"question": question, "machine": machine(), "rows": rows}, indent=2) + "\n"
        )


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: the median and the 99th percentile (of fewer than 100 calls, the slowest)."""
    ordered = sorted(seconds)
    return {
        "ms_median": 1000 * statistics.median(ordered),
        "ms_p99": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }
