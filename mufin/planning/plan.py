"""The plan of a run: the cost of each stage, and what does not fit the machine."""

from __future__ import annotations

from dataclasses import dataclass

from mufin.params import Params
from mufin.planning.data_stages import curate, download, precompute
from mufin.planning.evaluate_stage import evaluate
from mufin.planning.finetune_stage import finetune
from mufin.planning.machine import Machine
from mufin.planning.network import network_of
from mufin.planning.prediction_stages import folds, index, retrieve
from mufin.planning.run import Run
from mufin.planning.sizes import Sizes
from mufin.planning.training_stages import pretrain, transfer
from mufin.planning.work import Held, Phase, Stage

FORMULAS = (
    download,
    curate,
    precompute,
    pretrain,
    retrieve,
    transfer,
    finetune,
    index,
    folds,
    evaluate,
)
GB = 1e9
COPIES = 2  # of a file on the disk: DVC keeps one in its cache, which few file systems share
NAMED = 2  # things named of what does not fit


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages on a machine with a GPU, and on the same machine without one.

    `run` is the machine that the plan is for, `other` the second of the two.
    """

    run: Run
    stages: list[Stage]
    other: Run
    other_stages: list[Stage]

    @property
    def with_gpu(self) -> tuple[Run, list[Stage]]:
        first = self.run.machine.has_gpu
        return (self.run, self.stages) if first else (self.other, self.other_stages)

    @property
    def without_gpu(self) -> tuple[Run, list[Stage]]:
        first = self.run.machine.has_gpu
        return (self.other, self.other_stages) if first else (self.run, self.stages)


def plan(params: Params, sizes: Sizes, machine: Machine, assumed_gpu: float) -> Plan:
    """All stages; `assumed_gpu` is the memory of the GPU where `machine` has none."""
    network = network_of(params, sizes)
    run = Run(params, sizes, network, machine)
    other = machine.with_gpu(0.0 if machine.has_gpu else assumed_gpu)
    second = Run(params, sizes, network, other)
    return Plan(run, stages_of(run), second, stages_of(second))


def stages_of(run: Run) -> list[Stage]:
    return [formula(run) for formula in FORMULAS]


def misfits(run: Run, stages: list[Stage]) -> list[str]:
    """A sentence per stage and kind of memory that does not suffice; the first for the disk."""
    machine, out, kept, full = run.machine, [], 0.0, False
    for stage in stages:
        if stage.refused:
            out.append(f"{stage.name}: {stage.refused}")
        for on_device, there in ((False, machine.host), (True, machine.gpu)):
            size, phase = stage.peak(machine, on_device)
            if size > there and phase is not None:
                out.append(_too_large(stage, phase, run, on_device))
        kept += COPIES * sum(stage.files.values())
        if kept + stage.scratch > machine.disk and not full:
            full = True
            out.append(
                f"{stage.name}: {gigabytes(kept + stage.scratch)} on the disk by its end, with "
                f"DVC's cache, and {gigabytes(machine.disk)} are free; {_files_of(stage)}"
            )
    return out


def _too_large(stage: Stage, phase: Phase, run: Run, on_device: bool) -> str:
    machine = run.machine
    size, there = phase.size(machine, on_device), machine.gpu if on_device else machine.host
    kind = "GPU memory" if on_device else "memory"
    largest = sorted(phase.held_by(machine, on_device), key=lambda h: -h.size)[:NAMED]
    return (
        f"{stage.name}: {gigabytes(size)} of {kind} for {phase.what}, and there are "
        f"{gigabytes(there)}; {'; '.join(map(_named, largest))}"
    )


def _named(held: Held) -> str:
    change = f" (settings: {held.setting})" if held.setting else ""
    return f"{gigabytes(held.size)} are {held.what}{change}"


def _files_of(stage: Stage) -> str:
    parts = [f"{gigabytes(size)} are {name}" for name, size in stage.files.items()]
    if stage.scratch:
        parts.append(f"{gigabytes(stage.scratch)} are in scratch")
    return "; ".join(parts) or "earlier stages wrote them"


def gigabytes(size: float) -> str:
    """`0.3 GB`, `12 GB`, `4,100 GB`."""
    return f"{number(size / GB)} GB"


def number(value: float) -> str:
    """Two decimals below 0.1, one below 10, else a whole number: `0.03`, `1.6`, `12`, `4,100`."""
    if value < 0.095:
        return f"{value:.2f}" if value else "0"
    return f"{value:.1f}" if value < 9.95 else f"{round(value):,}"
