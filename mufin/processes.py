"""Runs a stage in several processes of this machine: MUFIN_PROCESSES, by torchrun's launcher."""

from __future__ import annotations

import logging
import os
import sys
import uuid

from mufin import interrupts
from mufin.errors import MufinError, shown


def launch(count: int, workers: int) -> None:
    """Runs this program in `count` processes that share `workers`, until all of them are done.

    Raises MufinError with what the first one that fails has said.
    """
    # Seconds to import, which a stage with one process need not wait for
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _check_gpus(count)
    each = str(max(workers // count, 1))
    os.environ |= {interrupts.LAUNCHED: "1", "MUFIN_WORKERS": each}
    os.environ.setdefault("OMP_NUM_THREADS", each)  # else each process takes all cores
    logging.disable(logging.CRITICAL)  # the launcher would say again what the processes say
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "a stage is started by python -m"
    try:
        elastic_launch(config, sys.executable)("-u", "-m", spec.name, *sys.argv[1:])
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        raise MufinError(_why(number, count, failure.exitcode, failure.error_file_data)) from None
    except SignalException as error:  # the launcher's handlers replace those of `interrupts`
        interrupts.end(error.sigval)


def _why(number: int, count: int, code: int, said: object) -> str:
    """What the process `number` has said to the launcher (`runtime`), or how it ended."""
    if isinstance(said, dict) and isinstance(message := said.get("message"), dict):
        return str(message["message"])
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return (
        f"process {number + 1} of {count} {ended}; what it wrote is above; after the cause is "
        "mended, run the same command to continue"
    )


def _check_gpus(count: int) -> None:
    """Raises MufinError where several processes would share a GPU, which NCCL refuses."""
    import torch

    name = os.environ.get("MUFIN_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda:"):
        raise MufinError(
            f"MUFIN_DEVICE is {shown(name)} and MUFIN_PROCESSES {count}; set it to cuda, which "
            "gives each process a GPU of its own, or unset MUFIN_PROCESSES"
        )
    if name == "cuda" and (there := torch.cuda.device_count()) < count:
        raise MufinError(
            f"MUFIN_PROCESSES is {count} and torch sees {there} GPUs; set it to at most that, or "
            "MUFIN_DEVICE to cpu"
        )
