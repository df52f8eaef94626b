"""The machine that a plan is for: its memory, and the rates that are assumed or measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Rates of one core, about those of a cloud machine (docs/scale.md, Assumptions).
PICTURES = 200.0  # decoded and scaled per second
TITLES = 10_000.0  # tokenised per second
LINES = 12_000.0  # of metadata read per second
ROWS = 30_000.0  # of tables cleaned per second
GRAPH_ROWS = 7_500.0  # added to a graph of HNSW per second, 192 dimensions, ef_construction 200
GRAPH_QUERIES = 1_000.0  # answered per second by HNSW, 192 dimensions, ef 800
TFIDF_PAIRS = 1e8  # (test, train) pairs of titles settled per second
SPARSE_FLOP = 1e9  # of products of a sparse matrix per second, assumed
STEP_SECONDS = 0.02  # of Python per training step, beside the device
NETWORK = 1.25e9  # bytes per second of a machine: 10 Gbit/s, assumed
ANSWER_SECONDS = 0.05  # of a host, per picture and connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Memory in bytes, rates per second."""

    host: float  # memory of the host
    gpu: float  # memory of the GPU, that of each process; 0: none
    disk: float  # free on the disk
    cores: int
    gpu_flop: float  # peak, bf16
    gpu_full_flop: float  # peak, float32 without TF32, as the search multiplies
    gpu_share: float  # of the peaks that the stages are assumed to reach
    cpu_flop: float  # of all cores, float32
    cpu_share: float
    gpu_moved: float  # bytes
    cpu_moved: float
    disk_per_second: float  # bytes
    processes: int = 1  # of stages with networks, each with a GPU of its own (MUFIN_PROCESSES)
    recompute: bool = False  # whether a step keeps little of the encoders (MUFIN_RECOMPUTE)

    @property
    def has_gpu(self) -> bool:
        return self.gpu > 0

    def flop_per_second(self, full: bool = False) -> float:
        """Operations per second of the device that the stages use; `full`: float32 on a GPU."""
        if self.has_gpu:
            return (self.gpu_full_flop if full else self.gpu_flop) * self.gpu_share
        return self.cpu_flop * self.cpu_share

    @property
    def moved_per_second(self) -> float:
        return self.gpu_moved if self.has_gpu else self.cpu_moved

    def with_gpu(self, size: float) -> Machine:
        """The same machine with a GPU of another memory; 0: without one."""
        return replace(self, gpu=size)


def measured_cpu_flop(seconds: float = 0.5) -> float:
    """Operations per second of a float32 matrix product on the threads of a stage."""
    import time

    import torch

    from mufin.runtime import workers

    torch.set_num_threads(workers())
    a = torch.ones(1024, 1024)
    a @ a  # the first product starts the threads
    count, start = 0, time.monotonic()
    while (spent := time.monotonic() - start) < seconds:
        a @ a
        count += 1
    return 2 * 1024**3 * count / spent
