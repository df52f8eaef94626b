"""`mufin plan`: what a run takes, before it starts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mufin import environment
from mufin.commands.checks.machine import total_memory
from mufin.commands.console import say, say_all
from mufin.errors import MufinError
from mufin.params import Params, load_params
from mufin.profiles import profile_names, read_profile

if TYPE_CHECKING:
    from mufin.planning.machine import Machine

GB = 1e9
ASSUMED_GPU = 80 * GB  # memory of the GPU where there is none
GPU_TFLOPS, GPU_FULL_TFLOPS = 790.0, 60.0  # an H100 or H200: bf16, and float32 without TF32
GPU_SHARE, CPU_SHARE = 0.4, 0.5
GPU_MOVED, CPU_MOVED, DISK = 4e12, 2e10, 2e9  # bytes per second


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The numbers on the command line; None where one is not given. Memory is in GB."""

    counts: dict[str, int | None]
    gpu_memory: float | None
    memory: float | None
    disk: float | None
    cores: int | None
    gpu_tflops: float | None
    cpu_gflops: float | None


def plan(
    params: Path,
    profile: str | None,
    like: str | None,
    asked: Asked,
    machines: int | None,
    as_json: bool,
) -> None:
    """Prints the plan; raises MufinError where a stage cannot fit."""
    settings = _settings(params, profile)
    # here: they import torch and the libraries of the encoders, which takes seconds
    from mufin.planning.found import sizes_in
    from mufin.planning.machines import figures, machines_table
    from mufin.planning.plan import misfits
    from mufin.planning.plan import plan as planned
    from mufin.planning.sizes import sizes_of
    from mufin.planning.table import document, lines

    given = {name: float(n) for name, n in asked.counts.items() if n is not None}
    home = params.parent
    sizes = sizes_of(settings, given, sizes_in(home), like)
    made = planned(settings, sizes, _machine(asked, home), ASSUMED_GPU)
    if as_json:
        several = {} if machines is None else {"machines": figures(made.run, machines)}
        typer.echo(json.dumps(document(made) | several, indent=2))
    else:
        say_all(lambda: lines(made))
        if machines is not None:
            say("")
            say_all(machines_table, made.run, machines)
    if problems := misfits(made.run, made.stages):
        stages = list(dict.fromkeys(text.partition(":")[0] for text in problems))
        raise MufinError(
            f"the run does not fit this machine in {', '.join(stages)}; change the settings that "
            "are named above, or take a larger machine"
        )


def _settings(params: Path, profile: str | None) -> Params:
    if profile is None:
        return load_params(params)
    if profile not in (names := profile_names()):
        raise MufinError(f"there is no profile {profile}; choose one of {', '.join(names)}")
    return read_profile(profile)


def _machine(asked: Asked, home: Path) -> Machine:
    from mufin.planning.machine import Machine, measured_cpu_flop
    from mufin.runtime import workers

    flop = asked.cpu_gflops * 1e9 if asked.cpu_gflops else measured_cpu_flop()
    there = next(p for p in (home.resolve(), *home.resolve().parents) if p.exists())
    return Machine(
        host=float(total_memory()) if asked.memory is None else asked.memory * GB,
        gpu=_gpu_memory() if asked.gpu_memory is None else asked.gpu_memory * GB,
        disk=float(shutil.disk_usage(there).free) if asked.disk is None else asked.disk * GB,
        cores=asked.cores or workers(),
        gpu_flop=(asked.gpu_tflops or GPU_TFLOPS) * 1e12,
        gpu_full_flop=GPU_FULL_TFLOPS * (asked.gpu_tflops or GPU_TFLOPS) / GPU_TFLOPS * 1e12,
        gpu_share=GPU_SHARE,
        cpu_flop=flop,
        cpu_share=CPU_SHARE,
        gpu_moved=GPU_MOVED,
        cpu_moved=CPU_MOVED,
        disk_per_second=DISK,
        processes=environment.processes(),
        recompute=bool(environment.whole("MUFIN_RECOMPUTE", 0, 0, 1)),
    )


def _gpu_memory() -> float:
    """Bytes of memory of the GPU that the stages would use; 0 without one."""
    import os

    import torch

    if os.environ.get("MUFIN_DEVICE", "").startswith("cpu") or not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.get_device_properties(0).total_memory)
