"""Device and precision of a stage, from the environment, never from params.

MUFIN_DEVICE      cuda, cuda:1, cpu    default: CUDA where there is a GPU, else the CPU
MUFIN_PRECISION   fp32, bf16           default: bf16 on CUDA, fp32 on a CPU (where bf16 is slower)
"""

from __future__ import annotations

import os

import torch

from mufin.errors import MufinError
from mufin.runtime import workers


def device() -> torch.device:
    """The device of this process, set up; under torchrun the local rank's GPU.

    Raises MufinError if the machine does not have it.
    """
    torch.set_num_threads(workers())
    default = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    name = os.environ.get("MUFIN_DEVICE", default)
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise MufinError(
            f"MUFIN_DEVICE is {name!r}; it must be cpu, cuda or cuda:<number>"
        ) from None
    if chosen.type == "cuda":
        if chosen.index is None:  # set_device wants a number
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
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


def precision() -> torch.dtype:
    """The dtype of autocast: torch.bfloat16 or torch.float32 (no autocast)."""
    name = os.environ.get("MUFIN_PRECISION", "bf16" if device().type == "cuda" else "fp32")
    if name not in ("fp32", "bf16"):
        raise MufinError(f"MUFIN_PRECISION is {name!r}; it must be fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
