"""Device, precision and determinism of a stage, from the environment, never from params.

MUFIN_DEVICE         cuda, cuda:1, cpu   default: CUDA where there is a GPU, else the CPU
MUFIN_PRECISION      fp32, bf16          default: bf16 on CUDA, fp32 on a CPU (where bf16 is slower)
MUFIN_DETERMINISTIC  0, 1                default: 1 on a CPU, 0 on CUDA; see docs/gpu.md
MUFIN_RECOMPUTE      0, 1                default: 0; 1: less memory per training step, more time
"""

from __future__ import annotations

import os
import re

import torch
import torch.utils.deterministic

from mufin.environment import local_rank, whole
from mufin.errors import MufinError, shown
from mufin.runtime import workers


def device() -> torch.device:
    """The device of this process, set up; under torchrun the local rank's GPU.

    Raises MufinError if the machine does not have it.
    """
    torch.set_num_threads(workers())
    default = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    name = os.environ.get("MUFIN_DEVICE", default)
    if not re.fullmatch("cpu|cuda(:[0-9]{1,2})?", name):
        raise MufinError(f"MUFIN_DEVICE is {shown(name)}; set it to cpu, cuda or cuda:<number>")
    chosen = torch.device(name)
    # Before CUDA starts: cuBLAS reads the environment once
    _set_determinism(chosen)
    if chosen.type == "cuda":
        if chosen.index is None:  # set_device wants a number
            chosen = torch.device("cuda", local_rank())
        if not torch.cuda.is_available() or chosen.index >= torch.cuda.device_count():
            raise MufinError(
                f"MUFIN_DEVICE is {name!r} and torch sees {torch.cuda.device_count()} GPUs; "
                "set it to cpu or to one that is there"
            )
        torch.cuda.set_device(chosen)
        torch.set_float32_matmul_precision("high")
        # cuDNN's attention makes a new plan for each batch size, and every step has another number
        # of titles and images
        torch.backends.cuda.enable_cudnn_sdp(False)
    return chosen


def _set_determinism(chosen: torch.device) -> None:
    """Lets torch use algorithms that give the same bytes in every run, or the fastest ones.

    On a CPU the fastest ones add the gradients of rows that are taken several times in the order in
    which threads arrive. On CUDA, an operation without a deterministic algorithm raises
    RuntimeError, which `runtime.refused` turns into a sentence: a warning would be lost in a log.
    """
    wanted = bool(whole("MUFIN_DETERMINISTIC", int(chosen.type == "cpu"), 0, 1))
    # As `torch.use_deterministic_algorithms`, which imports torch's compiler and takes a second
    torch.set_deterministic_debug_mode("error" if wanted else "default")
    # torch would also fill all new memory, to find code that reads it unwritten; that costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if wanted and chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def precision() -> torch.dtype:
    """The dtype of autocast: torch.bfloat16 or torch.float32 (no autocast)."""
    name = os.environ.get("MUFIN_PRECISION", "bf16" if device().type == "cuda" else "fp32")
    if name not in ("fp32", "bf16"):
        raise MufinError(f"MUFIN_PRECISION is {shown(name)}; set it to fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def recompute() -> bool:
    """Whether training computes the encoders twice per step, to keep less for the backward pass."""
    return bool(whole("MUFIN_RECOMPUTE", 0, 0, 1))
