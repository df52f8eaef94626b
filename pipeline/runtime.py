"""The machine, from the environment and never from params: device, precision, workers, scratch, the stage's frame.

MUFIN_DEVICE      cuda, cuda:1, cpu        default: CUDA where there is one, else the CPU
MUFIN_PRECISION   fp32, bf16               default: bf16 on CUDA, fp32 on a CPU (where bf16 is slower)
MUFIN_WORKERS     processes or threads     default: the cores this process may use
MUFIN_SCRATCH     folder                   default: scratch/; state that survives a kill
MUFIN_CHECKPOINT_SECONDS                   default: 60; time between two checkpoints of a training stage
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import torch
import typer

from pipeline.artifacts import write_json
from pipeline.errors import MufinError


def device() -> torch.device:
    """The device of this process; under torchrun the local rank's GPU. Raises MufinError if it is not there."""
    default = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    name = os.environ.get("MUFIN_DEVICE", default)
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise MufinError(f"MUFIN_DEVICE is {name!r}; it must be cpu, cuda or cuda:<number>") from None
    if chosen.type == "cuda":
        if chosen.index is None:                # set_device wants a number
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if not torch.cuda.is_available() or chosen.index >= torch.cuda.device_count():
            raise MufinError(f"MUFIN_DEVICE is {name!r} and torch sees {torch.cuda.device_count()} GPUs; "
                             "set it to cpu or to one that is there")
        torch.cuda.set_device(chosen)
        torch.set_float32_matmul_precision("high")
    return chosen


def precision() -> torch.dtype:
    """The dtype of autocast: torch.bfloat16 or torch.float32 (no autocast)."""
    name = os.environ.get("MUFIN_PRECISION", "bf16" if device().type == "cuda" else "fp32")
    if name not in ("fp32", "bf16"):
        raise MufinError(f"MUFIN_PRECISION is {name!r}; it must be fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def workers() -> int:
    """Processes or threads for work on the CPU, at least 1."""
    name = os.environ.get("MUFIN_WORKERS", str(len(os.sched_getaffinity(0))))
    if not name.isdigit() or int(name) < 1:
        raise MufinError(f"MUFIN_WORKERS is {name!r}; it must be a whole number of at least 1")
    return int(name)


def scratch(stage: str, fingerprint: str) -> Path:
    """`$MUFIN_SCRATCH/<stage>/<fingerprint>/`, made if need be: where a killed stage finds what it had."""
    folder = Path(os.environ.get("MUFIN_SCRATCH", "scratch")) / stage / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkpoint_seconds() -> float:
    return float(os.environ.get("MUFIN_CHECKPOINT_SECONDS", 60))


@contextlib.contextmanager
def measured(metrics: Path) -> Iterator[dict]:
    """A dict to fill with what the stage counted; published with wall time (s), peak memory (MB) and the device."""
    start = time.monotonic()
    report: dict = {}
    yield report
    report["seconds"] = round(time.monotonic() - start, 2)
    report["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        report["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if items := report.pop("items", None):
        report["items_per_second"] = round(items / max(report["seconds"], 1e-9), 2)
    if int(os.environ.get("RANK", 0)) == 0:
        write_json(report, metrics)


def run(main: Callable) -> None:
    """A stage's entry: options by typer; what a person can mend is one sentence and exit code 1."""
    def guarded(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except MufinError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            _fail(f"{error.filename or 'a file'} cannot be written: {error.strerror}; free or choose another place "
                  "(MUFIN_SCRATCH moves the scratch folder). What was there before is as it was")

    guarded.__doc__, guarded.__annotations__ = main.__doc__, main.__annotations__
    guarded.__wrapped__, guarded.__name__ = main, main.__name__
    torch.set_num_threads(workers())
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(guarded)
    app()


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(1)
