"""References for the figures: measured rates of the card, arithmetic of a step, GPU busy time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import interleaved

FULL = {"matmul": 8192, "copy": 2**29, "host": 2**28, "repeats": 10}  # numbers, not bytes
TINY = {"matmul": 256, "copy": 2**20, "host": 2**18, "repeats": 2}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The highest rates of the card, measured in the same run."""

    bf16: float  # FLOP/s of a large bf16 matrix product
    fp32: float  # FLOP/s of a large float32 matrix product, TF32 off
    copy: float  # bytes/s of a copy within device memory, read plus written
    host: float  # bytes/s from pinned host memory to the device


def measure_ceilings(device: torch.device, tiny: bool) -> Ceilings:
    """The ceilings: medians of several runs on random data, after one run that does not count."""
    s = TINY if tiny else FULL
    n, repeats = s["matmul"], s["repeats"]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        rates = {}
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            rates[name] = 2 * n**3 / _seconds(lambda a=a, b=b: a @ b, repeats)
    finally:
        torch.set_float32_matmul_precision(before)
    source = torch.randn(s["copy"], device=device)
    target = torch.empty_like(source)
    rates["copy"] = 2 * source.nbytes / _seconds(lambda: target.copy_(source), repeats)
    host = torch.rand(s["host"])
    host = host.pin_memory() if device.type == "cuda" else host
    there = torch.empty_like(host, device=device)
    rates["host"] = host.nbytes / _seconds(lambda: there.copy_(host, non_blocking=True), repeats)
    return Ceilings(**rates)


def _seconds(function, repeats: int) -> float:
    return float(np.median(interleaved({"": function}, repeats)[""]))


@dataclass(frozen=True, slots=True)
class TextWork:
    """The sizes of a BERT-like E_T that decide its arithmetic."""

    layers: int
    width: int  # H
    hidden: int  # of the feed-forward layers

    def flop(self, tokens: np.ndarray) -> float:
        """FLOP of the forward pass over titles of `tokens` (n,) tokens each, padding aside.

        Per token and layer: 2 (4 H^2 + 2 H F) in the linear layers, 4 T H in attention.
        """
        linear = 2 * (4 * self.width**2 + 2 * self.width * self.hidden)
        return float(self.layers * (tokens * linear + 4 * tokens**2 * self.width).sum())


@dataclass(frozen=True, slots=True)
class ImageWork:
    """The last block of a ViT with queries of the class token alone (mufin/nn/image_encoder.py)."""

    tokens: int  # T, class token included
    width: int  # C
    hidden: int  # of the MLP

    def flop(self, images: int) -> float:
        """FLOP of the forward pass: K and V of all tokens; Q, O, attention and MLP of one token."""
        k_v = 2 * self.tokens * self.width * 2 * self.width
        one = 2 * (2 * self.width**2 + 2 * self.width * self.hidden)
        return float(images * (k_v + one + 4 * self.tokens * self.width))


TRAIN = (
    3  # FLOP of a training step per forward FLOP: the backward pass has two products per product
)


def busy_seconds(trace: dict) -> float | None:
    """Seconds in which the GPU ran at least one kernel or copy; None if the trace has none.

    `trace` is a Chrome trace of torch's profiler.
    """
    spans = sorted(
        (e["ts"], e["ts"] + e["dur"])
        for e in trace["traceEvents"]
        if e.get("ph") == "X" and e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    )
    if not spans:
        return None
    total, end = 0.0, spans[0][0]
    for first, last in spans:  # microseconds
        total += max(last - max(first, end), 0)
        end = max(end, last)
    return total / 1e6


class Busy:
    """Profiles the time between `start` and `stop`; `.share` is the part in which the GPU worked.

    If the profiler fails, `.share` stays None, `.reason` says why, and the profiled code goes on.
    """

    def __init__(self, device: torch.device, folder: Path):
        self.device, self.path = device, folder / "trace.json"
        self.share: float | None = None
        self.reason, self.seconds = "the trace has no kernel: no GPU?", 0.0
        self.profiler: torch.profiler.profile | None = None

    def start(self) -> None:
        kind = "CUDA" if self.device.type == "cuda" else "CPU"
        self._wait()
        try:
            activity = getattr(torch.profiler.ProfilerActivity, kind)
            self.profiler = torch.profiler.profile(activities=[activity])
            self.profiler.start()
        except Exception as error:  # CUPTI fails in classes of its own
            self.profiler, self.reason = None, f"{type(error).__name__}: {error}"
        self.seconds = -time.perf_counter()

    def stop(self) -> None:
        self._wait()
        self.seconds += time.perf_counter()
        if self.profiler is None:
            return
        try:
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.path))
            busy = busy_seconds(json.loads(self.path.read_text()))
            self.share = None if busy is None else busy / self.seconds
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
